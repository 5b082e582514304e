// -- What is known of a run ----------------------------------------------------------------------
// Data alone: what the service says of a run, and each event on top of it. Nothing here touches the page.

const LOGGED = 1000;

/** A run as it is known: `snapshot` is the whole truth at a moment, `hear` adds an event. */
class RunModel {
  constructor(id) {
    this.id = id;
    this.pipeline = this.status = this.error = "";
    this.began = this.ended = NaN;
    this.links = {};
    this.steps = new Map();
    this.skew = Infinity;
    this.lines = 0;
    this.forget();
  }

  /** Forgets the events, for a run that is resumed tells new ones. */
  forget() {
    this.log = [];
    this.progress = new Map();
    this.heard = 0;
    this.lastId = null;
  }

  /** The steps of the graph, in its order, before anything is known of them. */
  lay(steps) {
    const known = this.steps;
    this.steps = new Map(
      steps.map((step) => [
        step.name,
        { ...blank(step.name), ...known.get(step.name), layer: step.layer ?? "", needs: step.needs ?? [] }
      ])
    );
    for (const [name, step] of known) if (!this.steps.has(name)) this.steps.set(name, step);
  }

  step(name) {
    if (!this.steps.has(name)) this.steps.set(name, blank(name));
    return this.steps.get(name);
  }

  snapshot(run, skew) {
    this.skew = Math.min(this.skew, skew);
    this.pipeline = run.pipeline;
    this.status = run.status;
    this.error = text(run.error);
    this.began = instant(run.started_at);
    this.ended = instant(run.finished_at);
    this.links = run.links ?? {};
    for (const each of run.steps ?? []) settle(this.step(each.name), each);
  }

  hear({ id, name, told }) {
    if (id !== null) this.lastId = id;
    const at = instant(told.time);
    if (!Number.isNaN(at)) this.skew = Math.min(this.skew, Date.now() - at);
    this.note({ at, name, step: told.step ?? "", told: lineOf(name, told) });
    (HEARD[name] ?? nothing)(this, told, at);
  }

  /** Adds a line to the log; the progress of a step is one line, however far it comes. */
  note(line) {
    const before = line.name === "step.progressed" ? this.progress.get(line.step) : undefined;
    if (before) return Object.assign(before, line);
    this.heard += 1;
    line.number = this.lines += 1; // also after a resume, no two lines have the same
    this.log.push(line);
    if (line.name === "step.progressed") this.progress.set(line.step, line);
    if (this.log.length > LOGGED * 1.2) this.log.splice(0, this.log.length - LOGGED);
    return line;
  }

  /** Whether the service lets something be done: it says so with a link. */
  offers(action) {
    return Boolean(this.links[action]);
  }

  /** Now, by the clock of the service. */
  now() {
    return Date.now() - (Number.isFinite(this.skew) ? this.skew : 0);
  }

  get over() {
    return ENDED.has(this.status);
  }

  /** What a step is to a reader: in a run that is over, nothing waits any more. */
  statusOf(name) {
    const step = this.steps.get(name);
    if (!step) return undefined;
    return step.status || "waiting";
  }

  counts() {
    const counts = new Map(STATUSES.map((status) => [status, 0]));
    for (const step of this.steps.values()) {
      const status = step.status || "waiting";
      counts.set(status, (counts.get(status) ?? 0) + 1);
    }
    return counts;
  }
}

function blank(name) {
  return {
    name,
    layer: "",
    needs: [],
    status: "",
    attempts: 0,
    began: NaN,
    took: NaN,
    waited: NaN,
    rows: null,
    error: "",
    because: "",
    cache: "",
    done: 0,
    total: 0,
    failures: [],
    open: false
  };
}

function nothing() {}

/** Takes over what the service says of a step. */
function settle(step, given) {
  step.status = given.status === "pending" ? "" : (given.status ?? step.status);
  step.attempts = given.attempts ?? step.attempts;
  const began = instant(given.started_at);
  if (!Number.isNaN(began)) step.began = began;
  const running = step.status === "running" || step.status === "retrying";
  step.took = running || given.run_seconds === undefined || given.run_seconds === null ? NaN : given.run_seconds;
  step.waited = given.queue_seconds ?? NaN;
  step.rows = given.rows ?? null;
  step.error = text(given.error);
  step.because = given.skipped_because ?? "";
  step.cache = cacheOf(given.cache);
}

function cacheOf(cache) {
  if (!cache || typeof cache !== "object") return text(cache);
  return cache.hit ? "hit" : `miss: ${cache.reason ?? ""}`;
}

const HEARD = {
  "run.started": (run, told, at) => {
    run.status = "running";
    run.error = "";
    run.ended = NaN;
    if (Number.isNaN(run.began)) run.began = at;
  },
  "run.finished": (run, told, at) => {
    run.status = told.status ?? run.status;
    run.ended = at;
  },
  "step.started": (run, told, at) => {
    const step = run.step(told.step);
    Object.assign(step, {
      status: "running",
      began: at,
      took: NaN,
      attempts: Math.max(1, step.attempts),
      error: "",
      failures: []
    });
  },
  "step.retrying": (run, told, at) => {
    const step = run.step(told.step);
    step.status = "retrying";
    step.attempts = (told.attempt ?? step.attempts) + 1;
    step.error = text(told.error);
    if (step.failures.length < 50) step.failures.push(at);
  },
  "step.progressed": (run, told) => {
    const step = run.step(told.step);
    step.status = "running";
    step.done = told.done ?? step.done + 1;
    step.total = told.total ?? step.total;
  },
  "step.finished": (run, told, at) => {
    const step = run.step(told.step);
    settle(step, { ...told.result, status: told.status ?? told.result?.status });
    if (Number.isNaN(step.took) && !Number.isNaN(step.began)) step.took = Math.max(0, at - step.began) / 1000;
  }
};
HEARD["step.skipped"] = HEARD["step.finished"];

/** What the log says of an event, besides its time, its name and its step. */
function lineOf(name, told) {
  if (name === "step.retrying") {
    const again = told.wait === undefined ? "" : `; again in ${seconds(told.wait)}`;
    return `attempt ${told.attempt ?? "?"} failed: ${firstLine(told.error)}${again}`;
  }
  if (name === "step.progressed") return `${number(told.done ?? 0)} of ${number(told.total ?? 0)}`;
  if (name === "run.finished") return [told.status, firstLine(told.error)].filter(Boolean).join(": ");
  if (name === "loop.blocked") return `${seconds(told.seconds ?? 0)} at ${told.file ?? "?"}, line ${told.line ?? "?"}`;
  if (told.result || told.status) return finishedLine(told);
  return firstLine(told.reason ?? told.error ?? told.text ?? "");
}

function finishedLine(told) {
  const result = told.result ?? {};
  const parts = [told.status ?? result.status];
  if (result.run_seconds) parts.push(`in ${seconds(result.run_seconds)}`);
  if (result.rows !== null && result.rows !== undefined) parts.push(many(result.rows, "row"));
  if (result.skipped_because) parts.push(`because of ${result.skipped_because}`);
  if (result.error) parts.push(firstLine(result.error));
  return parts.filter(Boolean).join(", ");
}
