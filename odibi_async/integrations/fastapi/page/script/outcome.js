// -- What became of a run ------------------------------------------------------------------------

const ENDS = { interrupted: "was interrupted: its process is gone", cancelled: "was cancelled" };

/** Of a run that failed: which step, and what it said. */
function paintVerdict(model, verdict, find) {
  const failed = [...model.steps.values()].filter((step) => step.status === "failed");
  const bad = failed.length > 0 || (model.over && model.status !== "succeeded");
  hide(verdict, !bad);
  const key = JSON.stringify([model.status, model.error, failed.length, failed[0]?.error]);
  if (!bad || verdict.dataset.key === key) return;
  verdict.dataset.key = key;
  verdict.classList.toggle("bad", failed.length > 0 || model.status === "failed" || model.status === "interrupted");
  const named = failed
    .slice(0, 3)
    .map((step) =>
      el(
        "p",
        {},
        "Step ",
        el("button.inline", { type: "button", onclick: () => find(step.name) }, step.name),
        ` failed: ${firstLine(step.error) || "no reason is known"}`
      )
    );
  const more = failed.length > 3 ? el("p.dim", {}, `${number(failed.length - 3)} more failed.`) : null;
  const sentence = model.over
    ? `The run ${ENDS[model.status] ?? model.status}.`
    : "The run goes on, but not all is well.";
  const reason = !failed.length && model.error ? el("pre", { tabindex: 0 }, model.error) : null;
  verdict.replaceChildren(el("p", {}, el("strong", {}, sentence)), ...named, more ?? "", reason ?? "");
}

function paintProgress(progress, counts) {
  const there = [...counts].filter(([, count]) => count);
  keyed(
    progress,
    there,
    ([status]) => status,
    ([status]) => {
      const part = el("i");
      tint(part, status);
      return part;
    },
    (part, [, count]) => {
      part.style.flexGrow = count;
    }
  );
}

function paintResults(model, state, results) {
  const names = model.status === "succeeded" ? state.outputs : [];
  hide(results, !names.length);
  if (!names.length || results.firstChild) return;
  const shown = names.slice(0, 200);
  const links = (name) =>
    ["json", "csv", "parquet", "arrow"].map((format) =>
      linkTo(
        runAddress(model.id, ["results", name], { format }),
        `${name}.${format}`,
        format,
        `${name} as ${format}`
      )
    );
  results.append(
    el(
      "section",
      {},
      el("h2", {}, "Results"),
      el(
        "ul.results",
        {},
        shown.map((name) => el("li", {}, el("span.name", {}, name), " ", el("span.links", {}, links(name))))
      ),
      shown.length < names.length
        ? el("p.dim", {}, `${number(names.length - shown.length)} more datasets are not shown.`)
        : null
    )
  );
}

/** Tells those who cannot see: how the run stands, once for each change, and the first steps that fail. */
function tell(model, state) {
  const failed = [...model.steps.values()].filter((step) => step.status === "failed").length;
  const now = `${model.status} ${failed}`;
  if (!model.status || now === state.announced) return;
  state.announced = now;
  announce(`Run ${model.status}.${failed ? ` ${many(failed, "step")} failed.` : ""}`);
}
