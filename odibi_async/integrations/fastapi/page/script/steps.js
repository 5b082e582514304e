// -- The steps of a run, each with its place in time ---------------------------------------------

const STEPS_SHOWN = 100;
const DETAILS = 20;

/** A table with a row for each step: how it stands, and when it ran. */
function stepsView(model, repaint) {
  const view = { status: "", words: "", page: 0 };
  const change = (changes) => {
    Object.assign(view, { page: 0 }, changes);
    repaint();
  };
  const search = el("input", {
    type: "search",
    size: 16,
    oninput: () => change({ words: search.value.toLowerCase() })
  });
  const chips = el("div.chips", { role: "group", "aria-label": "Steps by status" });
  const pager = el("div.tools");
  const end = el("span");
  const body = el("tbody");
  const frame = el(
    "div.scroll.tall",
    { tabindex: 0, role: "region", "aria-label": "Steps in time" },
    el("table.steps", { "aria-label": "Steps" }, heading(end), body)
  );
  const element = el(
    "section",
    {},
    el("div.headed", {}, el("h2", {}, "Steps"), el("label.tools", {}, "Find ", search)),
    chips,
    frame,
    pager
  );
  const paint = () => {
    paintChips(chips, model.counts(), view, change);
    const found = chosen(model, view);
    view.page = Math.min(view.page, Math.floor(Math.max(0, found.length - 1) / STEPS_SHOWN));
    const from = view.page * STEPS_SHOWN;
    paintPager(pager, found.length, from, (page) => change({ page }), view.page);
    const span = spanOf(model);
    say(end, span.long > 0 ? seconds(span.long / 1000) : "");
    keyed(
      body,
      withDetails(found.slice(from, from + STEPS_SHOWN)),
      (item) => item.key,
      (item) => item.make(item.step, repaint),
      (row, item) => row.paint(item.step, span)
    );
  };
  const find = (name) => {
    search.value = name;
    model.step(name).open = true;
    change({ status: "", words: name.toLowerCase() });
    paint();
    element.scrollIntoView({ block: "start" });
    [...body.querySelectorAll("button")].find((button) => button.textContent === name)?.focus({ preventScroll: true });
  };
  return { element, paint, find };
}

function heading(end) {
  return el(
    "thead",
    {},
    el(
      "tr",
      {},
      el("th", { scope: "col" }, "Step"),
      el("th", { scope: "col" }, el("span.word", {}, "Status")),
      el("th.lane", { scope: "col" }, el("div.axis", {}, el("span", {}, "Time"), end)),
      el("th.n", { scope: "col" }, "Took"),
      el("th.n.wide", { scope: "col" }, "Rows"),
      el("th.n.wide", { scope: "col" }, "Attempts")
    )
  );
}

function chosen(model, view) {
  const fits = (step) =>
    (!view.status || (step.status || "waiting") === view.status) &&
    (!view.words || step.name.toLowerCase().includes(view.words));
  return [...model.steps.values()].filter(fits);
}

function withDetails(steps) {
  const items = [];
  let left = DETAILS;
  for (const step of steps) {
    items.push({ key: `row ${step.name}`, step, make: stepRow });
    if (step.open && (left -= 1) >= 0) items.push({ key: `detail ${step.name}`, step, make: detailRow });
  }
  return items;
}

/** The stretch of time that the lanes show: from the first step of this go to the end, or to now. */
function spanOf(model) {
  let from = Infinity,
    to = model.over ? model.ended : model.now();
  for (const step of model.steps.values()) {
    if (Number.isNaN(step.began) || step.status === "resumed") continue;
    from = Math.min(from, step.began);
    if (!Number.isNaN(step.took)) to = Math.max(Number.isNaN(to) ? 0 : to, step.began + step.took * 1000);
  }
  if (!Number.isFinite(from)) from = model.began;
  return { from, to, long: to - from, now: to };
}

function stepRow(step, repaint) {
  const open = el(
    "button.fold",
    {
      type: "button",
      "aria-expanded": "false",
      onclick: () => {
        step.open = !step.open;
        repaint();
      }
    },
    step.name
  );
  const status = pill("waiting");
  const bar = el("div.bar");
  const lane = el("td.lane", {}, el("div.track", {}, bar));
  const took = el("td.n"),
    rows = el("td.n.wide"),
    attempts = el("td.n.wide");
  const row = el("tr", {}, el("th", { scope: "row" }, open), el("td", {}, status), lane, took, rows, attempts);
  row.paint = (now, span) => {
    step = now;
    open.setAttribute("aria-expanded", String(step.open));
    setPill(status, step.status || "waiting");
    tint(bar, step.status);
    stretch(bar, step, span);
    say(took, tookOf(step, span));
    say(
      rows,
      step.rows !== null ? number(step.rows) : step.total ? `${number(step.done)} / ${number(step.total)}` : ""
    );
    say(attempts, step.attempts > 1 ? String(step.attempts) : "");
  };
  return row;
}

function tookOf(step, span) {
  if (!Number.isNaN(step.took)) return tookWords(step);
  if (step.status !== "running" && step.status !== "retrying") return "";
  return seconds(Math.max(0, span.now - step.began) / 1000);
}

/** How long a step took; of one that was resumed, nothing was called this time. */
function tookWords(step) {
  return Number.isNaN(step.began) || step.status === "resumed" ? "" : seconds(step.took);
}

/** Puts the bar of a step where it ran, with a tick where an attempt failed. */
function stretch(bar, step, span) {
  const began = step.status === "resumed" || Number.isNaN(step.began) || !(span.long > 0);
  hide(bar, began);
  if (began) return;
  const part = (milliseconds) => `${Math.min(100, Math.max(0, (milliseconds / span.long) * 100)).toFixed(2)}%`;
  const long = Number.isNaN(step.took) ? span.now - step.began : step.took * 1000;
  bar.style.left = part(step.began - span.from);
  bar.style.width = part(long);
  while (bar.childElementCount < step.failures.length) bar.append(el("i"));
  while (bar.childElementCount > step.failures.length) bar.lastChild.remove();
  step.failures.forEach((at, place) => {
    bar.children[place].style.left =
      `${Math.min(100, Math.max(0, ((at - step.began) / Math.max(1, long)) * 100)).toFixed(2)}%`;
  });
}

function detailRow(step) {
  const facts = el("dl"),
    said = el("pre", { tabindex: 0 });
  const row = el("tr.detail", {}, el("td", { colspan: 6 }, facts, said));
  row.paint = (now) => {
    keyed(
      facts,
      factsOf(now),
      ([name]) => name,
      ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
      (entry, [, value]) => say(entry.lastChild, value)
    );
    hide(said, !now.error);
    say(said, now.error);
  };
  return row;
}

function factsOf(step) {
  return [
    ["Layer", step.layer],
    ["Waits for", shortened(step.needs)],
    ["Began", clock(step.began)],
    ["Waited for a slot", step.waited > 0 ? seconds(step.waited) : ""],
    ["Took", tookWords(step)],
    ["Attempts", step.attempts ? String(step.attempts) : ""],
    ["Elements", step.total ? `${number(step.done)} of ${number(step.total)}` : ""],
    ["Rows", step.rows === null ? "" : number(step.rows)],
    ["Cache", step.cache],
    ["Skipped because of", step.because]
  ].filter(([, value]) => value);
}

function shortened(names) {
  const more = names.length > 8 ? ` and ${names.length - 8} more` : "";
  return names.slice(0, 8).join(", ") + more;
}

/** A button for each status that there is, with how many steps have it; pressed, it shows only these. */
function paintChips(chips, counts, view, change) {
  const there = [...counts].filter(([status, count]) => count || status === view.status);
  const create = ([status]) =>
    el(
      "button.chip",
      { type: "button", onclick: () => change({ status: view.status === status ? "" : status }) },
      pill(status),
      " ",
      el("b")
    );
  keyed(
    chips,
    there,
    ([status]) => status,
    create,
    (chip, [status, count]) => {
      chip.setAttribute("aria-pressed", String(view.status === status));
      say(chip.lastChild, number(count));
    }
  );
}

function paintPager(pager, total, from, to, page) {
  hide(pager, total <= STEPS_SHOWN && page === 0);
  if (pager.hidden) return;
  if (!pager.firstChild) {
    const button = (label) =>
      el("button", { type: "button", onclick: () => pager.go(label === "Next" ? 1 : -1) }, label);
    pager.append(button("Previous"), el("span"), button("Next"));
  }
  pager.go = (by) => to(page + by);
  const [previous, where, next] = pager.children;
  say(where, `Steps ${number(from + 1)} to ${number(Math.min(total, from + STEPS_SHOWN))} of ${number(total)}`);
  previous.disabled = page === 0;
  next.disabled = from + STEPS_SHOWN >= total;
}
