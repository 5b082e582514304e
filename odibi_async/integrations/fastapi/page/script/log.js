// -- The log of a run ----------------------------------------------------------------------------

const LINES = 200;

/** The last events of a run, the newest at the bottom; follows them unless a reader has scrolled up. */
function logView(model, repaint) {
  const list = el("ol");
  const frame = el("div.log", { tabindex: 0, role: "log", "aria-live": "off", "aria-label": "Events" }, list);
  const note = el("p.dim");
  const search = el("input", { type: "search", size: 16, oninput: repaint });
  const element = el(
    "section",
    {},
    el("div.headed", {}, el("h2", {}, "Events"), el("label.tools", {}, "Find ", search)),
    frame,
    note
  );
  const paint = (trouble) => {
    const words = search.value.toLowerCase();
    const found = words
      ? model.log.filter((line) => `${line.name} ${line.step} ${line.told}`.toLowerCase().includes(words))
      : model.log;
    const shown = found.slice(-LINES);
    const below = frame.scrollHeight - frame.scrollTop - frame.clientHeight < 30;
    keyed(
      list,
      shown,
      (line) => line.number,
      logLine,
      (row, line) => say(row.lastChild, line.told)
    );
    if (below) frame.scrollTop = frame.scrollHeight;
    say(note, trouble || noteOf(model, shown.length, words));
  };
  return { element, paint };
}

function logLine(line) {
  return el(
    "li",
    { class: `event ${tone(line)}` },
    el("time", {}, Number.isNaN(line.at) ? "" : CLOCK.format(new Date(line.at))),
    el("span.kind", {}, line.name),
    el("span.name", {}, line.step),
    el("span.told", {}, line.told)
  );
}

/** How loudly an event speaks. */
function tone({ name, told }) {
  if (/^(failed|interrupted)/.test(told)) return "bad";
  if (/retrying|blocked|abandoned|damaged|bypassed/.test(name)) return "warn";
  return "";
}

function noteOf(model, shown, words) {
  if (!model.heard) return "No events yet.";
  if (words) return `${many(shown, "event")} found among the last ${number(model.log.length)}.`;
  return shown < model.heard ? `The last ${number(shown)} of ${number(model.heard)} events.` : many(shown, "event");
}
