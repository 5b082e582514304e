// -- Schedules and streams -----------------------------------------------------------------------

const SCHEDULES = {
  name: "schedules", title: "Schedules",
  columns: ["Schedule", "State", "Pipeline", "Trigger", "Next", "Last"],
  cells: (schedule) => [schedule.pipeline, text(schedule.trigger), clock(instant(schedule.next)), lastOf(schedule.last)],
  status: (schedule) => (schedule.paused ? "paused" : "running"),
  actions: (schedule) => [schedule.paused ? "resume" : "pause", "trigger"],
};
const STREAMS = {
  name: "streams", title: "Streams",
  columns: ["Stream", "State", "Batches", "Lag", "Rate", "Watermark", "Poisoned"],
  cells: (stream) => [
    counted(stream.batches), given(stream.lag_seconds, seconds), given(stream.rate, (rate) => `${number(rate)} / s`),
    Number.isNaN(instant(stream.watermark)) ? text(stream.watermark) : clock(instant(stream.watermark)), counted(stream.poisoned),
  ],
  status: (stream) => stream.status,
  actions: (stream) => (stream.status === "stopped" ? [] : [stream.status === "paused" ? "resume" : "pause", "stop"]),
};
const DONE = { pause: "paused", resume: "resumed", trigger: "triggered", stop: "stopped" };

const given = (value, word) => (value === null || value === undefined ? "" : word(value));
const counted = (value) => given(Array.isArray(value) ? value.length : value, (count) => (typeof count === "number" ? number(count) : text(count)));

function lastOf(last) {
  if (!last || typeof last !== "object") return text(last);
  const at = instant(last.time ?? last.finished_at ?? last.started_at ?? last.at);
  return [last.status, clock(at)].filter(Boolean).join(", ");
}

/** A table of what runs on its own, with buttons for what may be done to each. */
function upkeepView(kind, signal) {
  const body = el("tbody");
  const none = el("p.dim", { hidden: true }, `No ${kind.name}.`);
  const refresh = async () => {
    const items = (await ask("GET", address([kind.name]), { signal }))[kind.name];
    hide(none, items.length > 0);
    keyed(body, items, (item) => item.name, (item) => upkeepRow(kind, item, refresh, signal), (row, item) => row.paint(item));
  };
  repeatedly(refresh, FRESH, signal);
  const [name, state, ...others] = kind.columns.map((each) => el("th", { scope: "col" }, each));
  return el("div", {}, el("h1", {}, kind.title), el("div.scroll", { tabindex: 0, role: "region", "aria-label": kind.title },
    el("table.upkeep", { "aria-label": kind.title }, el("thead", {}, el("tr", {}, name, state, el("th", { scope: "col" }, "Actions"), others)), body)), none);
}

function upkeepRow(kind, item, refresh, signal) {
  const status = pill("");
  const cells = kind.cells(item).map(() => el("td"));
  const buttons = el("div.tools");
  const row = el("tr", {}, el("th.name", { scope: "row" }, item.name), el("td", {}, status), el("td", {}, buttons), cells);
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
    setPill(status, kind.status(now));
    kind.cells(now).forEach((value, place) => say(cells[place], value));
    paintActions(buttons, kind.actions(now), item.name, act);
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
