"use strict";
(() => {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const make = (name, text, parent) => {
    const element = document.createElement(name);
    element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // Filter: steps whose name, layer or status has the text.
  const tools = document.querySelector("#tools");
  const rows = all("#steps-table tbody tr"), cards = all("#steps details[data-step]");
  if (tools && rows.length) {
    tools.hidden = false;
    const label = make("label", "Filter steps ", tools), input = make("input", "", label);
    input.type = "search";
    input.addEventListener("input", () => {
      const text = input.value.toLowerCase();
      const shows = (words) => words.toLowerCase().includes(text);
      rows.forEach((row) => { row.hidden = !shows(row.textContent); });
      cards.forEach((card) => { card.hidden = !shows(card.dataset.words || ""); });
    });
    const unfold = make("button", "Unfold all", tools);
    unfold.type = "button";
    unfold.addEventListener("click", () => {
      const open = unfold.textContent === "Unfold all";
      cards.forEach((card) => { card.open = open; });
      unfold.textContent = open ? "Fold all" : "Unfold all";
    });
  }

  // Sort: by a column of the table of steps; again for the other way.
  all("#steps-table thead th").forEach((heading, column) => {
    const button = make("button", heading.textContent);
    button.type = "button";
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      all("#steps-table thead th").forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value || row.cells[column].textContent;
      const body = document.querySelector("#steps-table tbody");
      rows.sort((a, b) => {
        const x = value(a), y = value(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        const order = numbers ? Number(x) - Number(y) : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });

  // The graph: lineage of the step under the pointer, a click opens its card, buttons zoom, dragging pans.
  const drawing = document.querySelector("#graph .drawing"), svg = drawing && drawing.querySelector("svg");
  if (svg) {
    const nodes = all("g.node", svg), edges = all("path.edge", svg);
    const reach = (start, from, to) => {
      const seen = new Set([start]), ahead = [start];
      while (ahead.length) {
        const node = ahead.pop();
        edges.forEach((edge) => {
          if (edge.dataset[from] === node && !seen.has(edge.dataset[to])) {
            seen.add(edge.dataset[to]);
            ahead.push(edge.dataset[to]);
          }
        });
      }
      return seen;
    };
    nodes.forEach((node) => {
      node.addEventListener("pointerenter", () => {
        const above = reach(node.dataset.node, "to", "from"), below = reach(node.dataset.node, "from", "to");
        const kin = (one) => above.has(one) || below.has(one);
        nodes.forEach((each) => each.classList.toggle("dimmed", !kin(each.dataset.node)));
        edges.forEach((edge) => {
          const on = (set) => set.has(edge.dataset.from) && set.has(edge.dataset.to);
          edge.classList.toggle("dimmed", !on(above) && !on(below));
        });
      });
      node.addEventListener("pointerleave", () => [...nodes, ...edges].forEach((each) => each.classList.remove("dimmed")));
      node.addEventListener("click", () => {
        const card = cards.find((each) => each.dataset.step === node.dataset.name);
        if (card) { card.open = true; card.scrollIntoView(); }
      });
    });
    const width = Number(svg.getAttribute("width")), bar = document.querySelector("#graph .tools");
    let zoom = 0;
    const apply = (factor) => {
      zoom = factor;
      drawing.classList.toggle("free", zoom > 0);
      if (zoom) svg.setAttribute("width", width * zoom); else svg.setAttribute("width", width);
    };
    if (bar) {
      bar.hidden = false;
      [["Fit", () => 0], ["100 %", () => 1], ["+", () => (zoom || 1) * 1.25], ["−", () => (zoom || 1) / 1.25]].forEach(([text, next]) => {
        const button = make("button", text, bar);
        button.type = "button";
        button.addEventListener("click", () => apply(next()));
      });
    }
    let held = null;
    drawing.addEventListener("pointerdown", (event) => {
      held = { x: event.clientX + drawing.scrollLeft, y: event.clientY + drawing.scrollTop };
    });
    drawing.addEventListener("pointermove", (event) => {
      if (held && event.buttons) { drawing.scrollLeft = held.x - event.clientX; drawing.scrollTop = held.y - event.clientY; }
    });
    addEventListener("pointerup", () => { held = null; });
  }
})();
