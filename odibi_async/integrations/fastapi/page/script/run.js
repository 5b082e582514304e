// -- A run, live ---------------------------------------------------------------------------------

const IDLE = 10_000;

/** The page of one run. */
function runView(id, signal) {
  const model = new RunModel(id);
  const state = { told: false, link: "", note: "", wake: nothing, describe: nothing, secrets: [], outputs: [] };
  const parts = {};
  const repaint = painter(() => { if (!signal.aborted) paintRun(model, state, parts); });
  Object.assign(parts, {
    head: headOf(model, state, signal, repaint), verdict: el("div.verdict", { hidden: true }), progress: el("div.progress", { "aria-hidden": "true" }),
    graph: el("div"), steps: stepsView(model, repaint), results: el("div"), log: logView(model, repaint),
  });
  state.describe = () => describe(model, state, parts, repaint, signal);
  watch(model, state, repaint, signal);
  const ticking = setInterval(() => { if (!model.over) repaint(); }, 500);
  signal.addEventListener("abort", () => clearInterval(ticking));
  return el("div", {}, parts.head.element, parts.verdict, parts.progress, parts.graph, parts.steps.element, parts.results, parts.log.element);
}

/** Keeps the model true for as long as the page shows it: a snapshot, then events; again after every end and break. */
async function watch(model, state, repaint, signal) {
  for (let tries = 0; !signal.aborted;) {
    try {
      await refresh(model, state);
      repaint();
      uncomplain("refresh");
      if (!state.told) await follow(model, state, repaint, signal);
      tries = 0;
    } catch (error) {
      if (signal.aborted) return;
      tries += 1;
      state.link = "trying again";
      complain(error, "refresh");
      if (isShutOut(error) || (error.status === 404 && !model.status)) return;
    }
    repaint();
    await new Promise((resolve) => { state.wake = resolve; pause(waitOf(model, state, tries), signal).then(resolve); });
  }
}

/** Milliseconds until a run is looked at again. */
function waitOf(model, state, tries) {
  if (tries) return Math.min(10_000, 500 * 2 ** tries) * (0.75 + Math.random() / 2);
  return model.over && state.told ? IDLE : 300;
}

/** Asks for the whole run. One that began or ended at another time than before was resumed: its events begin anew. */
async function refresh(model, state) {
  const [run, skew] = await askWithSkew(address(["runs", model.id]));
  const ended = ENDED.has(run.status) ? instant(run.finished_at) : Infinity;
  const resumed = differs(model.began, instant(run.started_at)) || (state.told && model.over && differs(model.ended, ended));
  model.snapshot(run, skew);
  state.describe();
  state.describe = nothing;
  if (resumed) {
    model.forget();
    state.told = false;
  }
  if (model.over && state.told) state.link = "";
}

/** Whether two times are not the same, give or take what clocks and rows make of them. */
const differs = (one, other) => Math.abs(one - other) > 500;

async function follow(model, state, repaint, signal) {
  const before = model.over;
  try {
    for await (const event of events(address(["runs", model.id, "events"]), model.lastId, signal)) {
      state.link = "live";
      model.hear(event);
      repaint();
    }
  } catch (error) {
    if (!before || !(error instanceof Problem) || error.status === 0) throw error;
    state.note = "The events of this run are no longer kept.";
    state.told = true;
    return;
  }
  if (model.over) {
    state.told = true;
    await refresh(model, state);
  }
}

/** The graph and the results, from what the service says of the pipeline. */
async function describe(model, state, parts, repaint, signal) {
  const graph = graphView(model.pipeline, signal, parts.steps.find);
  try {
    const pipeline = await ask("GET", address([model.pipeline]), { signal });
    const names = pipeline.graph.steps.map((step) => step.name);
    model.lay(pipeline.graph.steps);
    state.outputs = pipeline.outputs ?? [];
    state.secrets = Object.entries(pipeline.schema?.properties ?? {}).filter(([, each]) => each.writeOnly);
    state.drawn = names.length > 150 ? [graph, mosaic(names, parts.steps.find)] : [graph];
    if (names.length > 150) graph.element.append(state.drawn[1].element);
    parts.graph.replaceChildren(graph.element);
  } catch (error) {
    if (error.status !== 404) complain(error);
  }
  repaint();
}

function headOf(model, state, signal, repaint) {
  const done = (action, run) => {
    if (action === "resume") Object.assign(state, { told: false, note: "" }), model.forget();
    if (run.status) model.status = run.status;
    announce(action === "resume" ? "The run goes on." : "The run is being cancelled.");
    state.wake();
  };
  const act = async (action, body) => {
    uncomplain();
    await ask("POST", address(["runs", model.id, action]), { body, signal }).then((run) => done(action, run), complain);
    repaint();
  };
  const cancel = async () => {
    if (await confirmed("Cancel this run? Steps that have finished stay finished.", "Cancel the run", "Let it run")) await act("cancel");
  };
  const resume = async () => {
    const secrets = state.secrets.map(([name, schema]) => field(name, without(schema, "default"), {}, false));
    const question = "No journal keeps these inputs. Give those again that the rest of the run needs.";
    if (!secrets.length) await act("resume");
    else if (await confirmed(question, "Resume", "Not now", secrets.map((each) => each.element))) await act("resume", `{"inputs":${readAll(secrets)}}`);
  };
  const head = {
    pipeline: el("a"), status: pill(""), link: el("span.link"), facts: el("dl"), story: el("span"),
    cancel: el("button.danger", { type: "button", onclick: cancel, hidden: true }, "Cancel"),
    resume: el("button.primary", { type: "button", onclick: resume, hidden: true }, "Resume"),
  };
  head.element = el("header.run", {},
    el("div.headed", {}, el("h1", {}, head.pipeline, " ", el("code.id", {}, model.id)), el("div.tools", {}, head.story, head.resume, head.cancel)),
    el("div.state", {}, head.status, head.link, head.facts));
  return head;
}

function paintRun(model, state, parts) {
  paintHead(model, state, parts.head);
  paintVerdict(model, parts.verdict, parts.steps.find);
  paintProgress(parts.progress, model.counts());
  state.drawn?.forEach((drawing) => drawing.colour((name) => model.statusOf(name)));
  parts.steps.paint();
  parts.log.paint(state.note);
  paintResults(model, state, parts.results);
  tell(model, state);
}

function paintHead(model, state, head) {
  say(head.pipeline, model.pipeline || "Run");
  if (model.pipeline) head.pipeline.href = hashOf(["pipelines", model.pipeline]);
  setPill(head.status, model.status);
  say(head.link, model.over ? "" : state.link);
  head.link.classList.toggle("lost", state.link === "trying again");
  hide(head.cancel, model.over || !model.status);
  hide(head.resume, !model.over || model.status === "succeeded" || !model.offers("resume"));
  const end = model.over ? model.ended : model.now();
  const facts = [
    ["Began", clock(model.began)],
    [model.over ? "Took" : "So far", end > model.began ? seconds((end - model.began) / 1000) : ""],
    ["Steps", model.steps.size ? number(model.steps.size) : ""],
  ].filter(([, value]) => value);
  keyed(head.facts, facts, ([name]) => name, ([name]) => el("div", {}, el("dt", {}, name), el("dd")), (entry, [, value]) => say(entry.lastChild, value));
  if (model.over && model.offers("story") && !head.story.firstChild) {
    head.story.append(linkTo(address(["runs", model.id, "story"]), `story-${model.id}.html`, "Story", "Story of this run"));
  }
  hide(head.story, !model.over);
  document.title = `${glyph(model.status)} ${model.pipeline} ${model.id}`;
}

/** Of a run that failed: which step, and what it said. */
function paintVerdict(model, verdict, find) {
  const failed = [...model.steps.values()].filter((step) => step.status === "failed");
  const bad = failed.length > 0 || (model.over && model.status !== "succeeded");
  hide(verdict, !bad);
  const key = JSON.stringify([model.status, model.error, failed.length, failed[0]?.error]);
  if (!bad || verdict.dataset.key === key) return;
  verdict.dataset.key = key;
  verdict.classList.toggle("bad", failed.length > 0 || model.status === "failed" || model.status === "interrupted");
  const named = failed.slice(0, 3).map((step) => el("p", {},
    "Step ", el("button.inline", { type: "button", onclick: () => find(step.name) }, step.name), ` failed: ${firstLine(step.error) || "no reason is known"}`));
  const more = failed.length > 3 ? el("p.dim", {}, `${number(failed.length - 3)} more failed.`) : null;
  const sentence = model.over ? `The run ${model.status === "interrupted" ? "was interrupted: its process is gone" : model.status === "cancelled" ? "was cancelled" : model.status}.` : "The run goes on, but not all is well.";
  const reason = !failed.length && model.error ? el("pre", { tabindex: 0 }, model.error) : null;
  verdict.replaceChildren(el("p", {}, el("strong", {}, sentence)), ...named, more ?? "", reason ?? "");
}

function paintProgress(progress, counts) {
  const there = [...counts].filter(([, count]) => count);
  keyed(progress, there, ([status]) => status, ([status]) => { const part = el("i"); tint(part, status); return part; }, (part, [, count]) => { part.style.flexGrow = count; });
}

function paintResults(model, state, results) {
  const names = model.status === "succeeded" ? state.outputs : [];
  hide(results, !names.length);
  if (!names.length || results.firstChild) return;
  const shown = names.slice(0, 200);
  const links = (name) => ["json", "csv", "parquet", "arrow"].map((format) => linkTo(address(["runs", model.id, "results", name], { format }), `${name}.${format}`, format, `${name} as ${format}`));
  results.append(el("section", {}, el("h2", {}, "Results"),
    el("ul.results", {}, shown.map((name) => el("li", {}, el("span.name", {}, name), " ", el("span.links", {}, links(name))))),
    shown.length < names.length ? el("p.dim", {}, `${number(names.length - shown.length)} more datasets are not shown.`) : null));
}

/** Tells those who cannot see: how the run stands, once for each change, and the first steps that fail. */
function tell(model, state) {
  const failed = [...model.steps.values()].filter((step) => step.status === "failed").length;
  const now = `${model.status} ${failed}`;
  if (!model.status || now === state.announced) return;
  state.announced = now;
  announce(`Run ${model.status}.${failed ? ` ${many(failed, "step")} failed.` : ""}`);
}
