// -- Schedules and streams -----------------------------------------------------------------------

const SCHEDULES = {
  name: "schedules",
  title: "Schedules",
  columns: ["Schedule", "State", "Pipeline", "Trigger", "Next", "Last", "Error"],
  cells: (each) => [
    each.pipeline,
    each.trigger,
    clock(instant(each.next)),
    lastOf(each.last),
    each.error || each.last?.error
  ],
  status: (each) => each.state ?? (each.paused ? "paused" : "waiting"),
  actions: (each, status) => [status === "paused" || status === "stopped" ? "resume" : "pause", "trigger"]
};
const STREAMS = {
  name: "streams",
  title: "Streams",
  columns: ["Stream", "State", "Batches", "Lag", "Rate", "Watermark", "Set aside"],
  cells: (each) => [
    counted(each.batches),
    given(each.lag_seconds ?? each.lag, seconds),
    given(each.rate, (rate) => `${number(rate)} / s`),
    marked(each.watermark),
    counted(each.poisoned)
  ],
  status: (each) => each.status,
  actions: (each, status) => (LIVELY.has(status) ? [status === "paused" ? "resume" : "pause", "stop"] : [])
};
const LIVELY = new Set(["new", "running", "idle", "paused", "waiting"]);
const DONE = { pause: "paused", resume: "resumed", trigger: "triggered", stop: "stopped" };

const given = (value, word) => (value === null || value === undefined ? "" : word(value));
const counted = (value) =>
  given(Array.isArray(value) ? value.length : value, (count) =>
    typeof count === "number" ? number(count) : text(count)
  );

/** A watermark: a time as such, all else as it is. */
function marked(watermark) {
  return /^\d{4}-\d\d-\d\dT/.test(watermark) ? clock(instant(watermark)) : text(watermark);
}

/** How the last run of a schedule ended; a link to it, where it is known. */
function lastOf(last) {
  if (!last || typeof last !== "object") return text(last);
  const at = instant(last.ended_at ?? last.finished_at ?? last.time ?? last.at);
  const said = [last.status, clock(at)].filter(Boolean).join(", ");
  const id = last.run_id ?? last.id;
  return id ? { said, href: hashOf(["runs", id]) } : said;
}

/** Puts a text into a cell, or a link. */
function fillCell(cell, value) {
  const said = text(value?.said ?? value);
  if (!value?.href) return say(cell, said);
  if (cell.firstChild?.localName !== "a") cell.replaceChildren(el("a"));
  cell.firstChild.href = value.href;
  return say(cell.firstChild, said);
}

/** A table of what runs on its own, with buttons for what may be done to each. */
function upkeepView(kind, signal) {
  const body = el("tbody");
  const none = el("p.dim", { hidden: true }, `No ${kind.name}.`);
  const refresh = async () => {
    const items = (await ask("GET", address([kind.name]), { signal }))[kind.name];
    hide(none, items.length > 0);
    keyed(
      body,
      items,
      (item) => item.name,
      (item) => upkeepRow(kind, item, refresh, signal),
      (row, item) => row.paint(item)
    );
  };
  repeatedly(refresh, FRESH, signal);
  const [name, state, ...others] = kind.columns.map((each) => el("th", { scope: "col" }, each));
  return el(
    "div",
    {},
    el("h1", {}, kind.title),
    el(
      "div.scroll",
      { tabindex: 0, role: "region", "aria-label": kind.title },
      el(
        "table.upkeep",
        { "aria-label": kind.title },
        el("thead", {}, el("tr", {}, name, state, el("th", { scope: "col" }, "Actions"), others)),
        body
      )
    ),
    none
  );
}

function upkeepRow(kind, item, refresh, signal) {
  const status = pill("");
  const cells = kind.cells(item).map(() => el("td"));
  const buttons = el("div.tools");
  const row = el(
    "tr",
    {},
    el("th.name", { scope: "row" }, item.name),
    el("td", {}, status),
    el("td", {}, buttons),
    cells
  );
  const act = async (action) => {
    if (action === "stop" && !(await confirmed(`Stop ${item.name}?`, "Stop it", "Let it run"))) return;
    try {
      uncomplain();
      await request("POST", address([kind.name, item.name, action]), { signal });
      announce(`${item.name} was ${DONE[action]}.`);
      await refresh();
    } catch (error) {
      complain(error);
    }
  };
  row.paint = (now) => {
    const state = kind.status(now);
    setPill(status, state);
    kind.cells(now).forEach((value, place) => fillCell(cells[place], value));
    paintActions(buttons, kind.actions(now, state), item.name, act);
  };
  return row;
}

/** The buttons of a row. "Pause" becomes "Resume" in place, so that it keeps the focus. */
function paintActions(buttons, actions, name, act) {
  while (buttons.childElementCount > actions.length) buttons.lastChild.remove();
  while (buttons.childElementCount < actions.length) {
    const button = el("button.small", { type: "button", onclick: () => act(button.dataset.action) });
    buttons.append(button);
  }
  actions.forEach((action, place) => {
    const button = buttons.children[place];
    button.dataset.action = action;
    say(button, action[0].toUpperCase() + action.slice(1));
    button.setAttribute("aria-label", `${button.textContent} ${name}`);
  });
}
