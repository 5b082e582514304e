// -- A run, live ---------------------------------------------------------------------------------

const IDLE = 10_000;
const UNSEEN = 3_000;

/** The page of one run. */
function runView(id, signal) {
  const model = new RunModel(id);
  const state = { told: false, link: "", note: "", wake: nothing, describe: nothing, secrets: [], outputs: [] };
  const parts = {};
  const repaint = painter(() => {
    if (!signal.aborted) paintRun(model, state, parts);
  });
  Object.assign(parts, {
    head: headOf(model, state, signal, repaint),
    verdict: el("div.verdict", { hidden: true }),
    progress: el("div.progress", { "aria-hidden": "true" }),
    graph: el("div"),
    steps: stepsView(model, repaint),
    results: el("div"),
    log: logView(model, repaint)
  });
  state.describe = () => describe(model, state, parts, repaint, signal);
  watch(model, state, repaint, signal);
  document.addEventListener("visibilitychange", () => state.wake(), { signal });
  const ticking = setInterval(() => {
    if (!model.over) repaint();
  }, 500);
  signal.addEventListener("abort", () => clearInterval(ticking));
  return el(
    "div",
    {},
    parts.head.element,
    parts.verdict,
    parts.progress,
    parts.graph,
    parts.steps.element,
    parts.results,
    parts.log.element
  );
}

/** Keeps the model true for as long as the page shows it: a snapshot, then events; again after every end and break. */
async function watch(model, state, repaint, signal) {
  for (let tries = 0; !signal.aborted;) {
    try {
      await refresh(model, state);
      repaint();
      uncomplain("refresh");
      if (!state.told && !document.hidden) await follow(model, state, repaint, signal);
      tries = 0;
    } catch (error) {
      if (signal.aborted) return;
      tries += 1;
      state.link = "trying again";
      complain(error, "refresh");
      if (isShutOut(error) || (error.status === 404 && !model.status)) return;
    }
    repaint();
    await new Promise((resolve) => {
      state.wake = resolve;
      pause(waitOf(model, state, tries), signal).then(resolve);
    });
  }
}

/** Milliseconds until a run is looked at again. */
function waitOf(model, state, tries) {
  if (tries) return Math.min(10_000, 500 * 2 ** tries) * (0.75 + Math.random() / 2);
  if (model.over && state.told) return IDLE;
  return document.hidden ? UNSEEN : 300;
}

/** Asks for the whole run. One that began or ended at another time than before was resumed: its events begin anew. */
async function refresh(model, state) {
  const [run, skew] = await askWithSkew(runAddress(model.id));
  const ended = ENDED.has(run.status) ? instant(run.finished_at) : Infinity;
  const resumed =
    differs(model.began, instant(run.started_at)) || (state.told && model.over && differs(model.ended, ended));
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
  const seen = whileSeen(signal);
  try {
    for await (const event of events(runAddress(model.id, ["events"]), model.lastId, seen)) {
      state.link = "live";
      model.hear(event);
      repaint();
    }
  } catch (error) {
    if (seen.aborted) return;
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
