// -- The list of runs ----------------------------------------------------------------------------

const FRESH = 3_000;
const RUNS_SHOWN = 25;
const RUN_STATUSES = ["running", "succeeded", "failed", "cancelled", "interrupted"];

/** The runs that were there, the newest first, as the filter in the address has it. */
function runsView(query, signal) {
  const go = (changes) => {
    location.hash = hashOf(["runs"], { ...query, cursor: "", ...changes });
  };
  const pipeline = el(
    "select",
    { onchange: () => go({ pipeline: pipeline.value }) },
    el("option", { value: "" }, "all")
  );
  const status = el(
    "select",
    { onchange: () => go({ status: status.value }) },
    el("option", { value: "" }, "any"),
    RUN_STATUSES.map((each) => el("option", { value: each, selected: each === query.status }, each))
  );
  const table = runsTable(true);
  const pager = el("div.tools");
  fillPipelines(pipeline, query.pipeline, signal);
  const refresh = async () => {
    const answer = await ask(
      "GET",
      address(["runs"], { limit: RUNS_SHOWN, pipeline: query.pipeline, status: query.status, cursor: query.cursor }),
      { signal }
    );
    table.paint(answer.runs);
    paintTurns(pager, query, answer.next, go);
  };
  repeatedly(refresh, FRESH, signal);
  return el(
    "div",
    {},
    el(
      "div.headed",
      {},
      el("h1", {}, "Runs"),
      el("div.tools", {}, el("label", {}, "Pipeline ", pipeline), el("label", {}, "Status ", status))
    ),
    table.element,
    pager
  );
}

async function fillPipelines(select, chosen, signal) {
  const { pipelines } = await ask("GET", address(["pipelines"]), { signal }).catch(() => ({ pipelines: [] }));
  const names = pipelines.map((each) => each.name);
  if (chosen && !names.includes(chosen)) names.push(chosen);
  select.append(...names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
}

function paintTurns(pager, query, next, go) {
  const newest = el("button", { type: "button", onclick: () => go({}) }, "Newest");
  const older = el("button", { type: "button", onclick: () => go({ cursor: next }) }, "Older");
  const key = `${query.cursor ?? ""} ${next ?? ""}`;
  if (pager.dataset.key === key) return;
  pager.dataset.key = key;
  pager.replaceChildren(query.cursor ? newest : "", next ? older : "");
}

/** A table of runs that is painted again and again; with the pipeline's name where runs of several are in it. */
function runsTable(named) {
  const body = el("tbody");
  const none = el("p.dim", { hidden: true }, "No runs.");
  const columns = ["Run", el("span.word", {}, "Status"), named ? "Pipeline" : null, "Began"].filter(Boolean);
  const table = el(
    "table.runs",
    { "aria-label": "Runs", hidden: true },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        columns.map((name) => el("th", { scope: "col" }, name)),
        el("th.n", { scope: "col" }, "Took"),
        el("th.wide", { scope: "col" }, "Error")
      )
    ),
    body
  );
  const paint = (runs) => {
    hide(none, runs.length > 0);
    hide(table, !runs.length);
    keyed(
      body,
      runs,
      (run) => run.id,
      (run) => runRow(run, named),
      (row, run) => row.paint(run)
    );
  };
  return { element: el("div.scroll", {}, table, none), paint };
}

function runRow(run, named) {
  const status = pill(run.status);
  const began = timeEl(run.started_at);
  const took = el("td.n"),
    error = el("td.wide.clip");
  const link = el(
    "a.id",
    { href: hashOf(["runs", run.id]), title: run.id },
    el("span.wide", {}, run.id.slice(0, -8)),
    run.id.slice(-8)
  );
  const row = el(
    "tr",
    {},
    el("th", { scope: "row" }, link),
    el("td", {}, status),
    named ? el("td.name", {}, run.pipeline) : null,
    el("td", {}, began),
    took,
    error
  );
  row.paint = (now) => {
    setPill(status, now.status);
    setTime(began, now.started_at);
    say(took, durationOf(now));
    say(error, firstLine(now.error));
  };
  return row;
}

function durationOf(run) {
  const long = instant(run.finished_at) - instant(run.started_at);
  return long >= 0 ? seconds(long / 1000) : "";
}
