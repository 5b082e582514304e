// -- The head of a run: how it stands, and what may be done to it ---------------------------------

/** The head of a run, with its buttons. */
function headOf(model, state, signal, repaint) {
  const cancel = () => cancelRun(model, state, signal, repaint);
  const resume = () => resumeRun(model, state, signal, repaint);
  const head = {
    pipeline: el("a"),
    status: pill(""),
    link: el("span.link"),
    facts: el("dl"),
    story: el("span"),
    cancel: el("button.danger", { type: "button", onclick: cancel, hidden: true }, "Cancel"),
    resume: el("button.primary", { type: "button", onclick: resume, hidden: true }, "Resume")
  };
  head.element = el(
    "header.run",
    {},
    el(
      "div.headed",
      {},
      el("h1", {}, head.pipeline, " ", el("code.id", {}, model.id)),
      el("div.tools", {}, head.story, head.resume, head.cancel)
    ),
    el("div.state", {}, head.status, head.link, head.facts)
  );
  return head;
}

async function cancelRun(model, state, signal, repaint) {
  const question = "Cancel this run? Steps that have finished stay finished.";
  if (!(await confirmed(question, "Cancel the run", "Let it run"))) return;
  if (await act(model, "cancel", undefined, signal, state)) announce("The run is being cancelled.");
  repaint();
}

/** Resumes a run; its secrets, which no journal keeps, are asked for. */
async function resumeRun(model, state, signal, repaint) {
  const secrets = state.secrets.map(([name, schema]) => field(name, without(schema, "default"), {}, false));
  const question = "No journal keeps these inputs. Give those again that the rest of the run needs.";
  const boxes = secrets.map((each) => each.element);
  if (boxes.length && !(await confirmed(question, "Resume", "Not now", boxes))) return;
  const body = boxes.length ? `{"inputs":${readAll(secrets)}}` : undefined;
  if (await act(model, "resume", body, signal, state)) {
    state.told = false;
    state.note = "";
    model.forget();
    announce("The run goes on.");
  }
  repaint();
}

/** Asks the service to do something to a run; whether it did. */
async function act(model, action, body, signal, state) {
  uncomplain();
  try {
    const run = await ask("POST", runAddress(model.id, [action]), { body, signal });
    if (run.status) model.status = run.status;
    state.wake();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
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
    ["Steps", model.steps.size ? number(model.steps.size) : ""]
  ].filter(([, value]) => value);
  keyed(
    head.facts,
    facts,
    ([name]) => name,
    ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
    (entry, [, value]) => say(entry.lastChild, value)
  );
  if (model.over && model.offers("story") && !head.story.firstChild) {
    head.story.append(
      linkTo(runAddress(model.id, ["story"]), `story-${model.id}.html`, "Story", "Story of this run")
    );
  }
  hide(head.story, !model.over);
  document.title = `${glyph(model.status)} ${model.pipeline} ${model.id}`;
}
