// -- Words and numbers ---------------------------------------------------------------------------

const GLYPHS = {
  succeeded: "✓",
  cached: "⟲",
  resumed: "⏎",
  failed: "✗",
  skipped: "↷",
  cancelled: "■",
  running: "▶",
  retrying: "↻",
  interrupted: "!",
  waiting: "·",
  queued: "·",
  paused: "‖",
  stopped: "■",
  abandoned: "!",
  finished: "✓",
  stopping: "▶",
  draining: "▶"
};
const STATUSES = [
  "failed",
  "running",
  "retrying",
  "succeeded",
  "cached",
  "resumed",
  "skipped",
  "cancelled",
  "interrupted",
  "waiting"
];
const ENDED = new Set(["succeeded", "failed", "cancelled", "interrupted"]);

const glyph = (status) => GLYPHS[status] ?? "·";
const NUMBER = new Intl.NumberFormat("en");
const number = (value) => NUMBER.format(value);
const many = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/** Seconds for reading, as the story of a run prints them: 0.4 ms, 12 ms, 3.21 s, 2 min 5 s. */
function seconds(value) {
  if (!Number.isFinite(value)) return "";
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 60) return `${value.toFixed(2)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}

/** Milliseconds since the epoch of a time in ISO 8601 or in seconds; NaN where there is none. */
function instant(value) {
  if (typeof value === "number") return value * 1000;
  return value ? Date.parse(value) : NaN;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** A time of day; with the day, where that is not today. */
function clock(at) {
  if (Number.isNaN(at)) return "";
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)} ${CLOCK.format(date)}`;
}

/** An element for a time: what is read is local, what it means is UTC. */
function timeEl(value) {
  const element = el("time");
  setTime(element, value);
  return element;
}

function setTime(element, value) {
  const at = instant(value);
  if (Number.isNaN(at)) return say(element, value ? String(value) : "");
  const iso = new Date(at).toISOString();
  element.dateTime = element.title = iso;
  say(element, clock(at));
}

/** Whatever a service says as a text: errors may be texts or objects. */
function text(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  const said = value.message ?? value.detail ?? value.reason;
  if (said === undefined) return JSON.stringify(value);
  return value.type ? `${value.type}: ${said}` : String(said);
}

const firstLine = (value) => text(value).split("\n", 1)[0];

/** A pill with a status: sign, word and colour. */
function pill(status) {
  const element = el("span.pill", {}, el("span", { "aria-hidden": "true" }), el("span"));
  setPill(element, status);
  return element;
}

function setPill(element, status) {
  tint(element, status);
  say(element.firstChild, glyph(status));
  say(element.lastChild, status || "");
}
