"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const specs = JSON.parse(byId("specs").textContent);
  const drawn = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let browser = null;

  // ---- charts: drawn when they come into view, the others when there is time, in the colours of the page ----
  const theme = () => {
    const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map(of);
    return {
      background: null, font: "system-ui, sans-serif",
      view: { stroke: line }, rule: { color: ink },
      axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: 500, labelFontSize: 12, titleFontSize: 12.5 },
      legend: { labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontSize: 12 }, text: { fontSize: 12 }, point: { color: of("--accent") },
    };
  };
  let picked = "";
  const emphasise = (holder) => {
    const view = drawn.get(holder), names = JSON.parse(holder.dataset.names);
    if (view && names.length) view.signal("highlight", names.includes(picked) ? picked : "").runAsync();
  };
  const legends = [...document.querySelectorAll(".legend button")];
  for (const button of legends) {
    button.addEventListener("click", () => {
      picked = picked === button.dataset.name ? "" : button.dataset.name;
      for (const each of legends) each.setAttribute("aria-pressed", String(each.dataset.name === picked));
      for (const holder of drawn.keys()) emphasise(holder);
    });
  }
  const draw = async (holder) => {
    if (drawn.has(holder) || holder.closest("details:not([open])")) return;
    drawn.set(holder, null);
    const options = { renderer: "svg", actions: false, ast: true, config: theme(), tooltip: { theme: dark.matches ? "dark" : "light" } };
    const made = await vegaEmbed(holder, specs[holder.dataset.chart], options);
    drawn.set(holder, made.view);
    holder.dataset.drawn = "yes";
    emphasise(holder);
    if ("picks" in holder.dataset) made.view.addEventListener("click", (event, item) => pick(made.view, event, item));
  };
  const holders = [...document.querySelectorAll("[data-chart]")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "300px" });
  holders.forEach((holder) => watcher.observe(holder));
  const whenIdle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  const drawRest = () => {
    const next = holders.find((holder) => !drawn.has(holder) && !holder.closest("details:not([open])"));
    if (next) draw(next).then(() => whenIdle(drawRest));
  };
  addEventListener("load", () => whenIdle(drawRest));
  const redraw = () => {
    for (const [holder, view] of drawn) {
      if (view) view.finalize();
      drawn.delete(holder);
      delete holder.dataset.drawn;
      watcher.unobserve(holder);
      watcher.observe(holder);
    }
    whenIdle(drawRest);
  };
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => holders.forEach(draw));
  document.querySelectorAll("details").forEach((fold) => fold.addEventListener("toggle", () => whenIdle(drawRest)));
  const unfold = () => {
    const section = document.getElementById(location.hash.slice(1)), fold = section && section.querySelector("details");
    if (fold && section.className === "whole") fold.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();

  for (const button of document.querySelectorAll("[data-copy]")) {
    const text = button.previousElementSibling;
    const select = () => getSelection().selectAllChildren(text); // where nothing may be written to the clipboard
    button.addEventListener("click", () => {
      const told = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(told, select);
      else select();
    });
  }

  const pick = (view, event, item) => {
    const row = item && item.datum;
    if (!browser || !row || !row.kind) return;
    const svg = view.container().querySelector("svg"), bounds = svg.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) * svg.viewBox.baseVal.width) / bounds.width - view.origin()[0] - view.padding().left;
    browser.show(row, row.arm ? view.scale("x").invert(x) : null);
  };

  // ---- answers: unpacked on arrival, one page of rows in the document at a time ----
  const PAGE = 25;
  const unpack = async () => {
    const bytes = Uint8Array.from(atob(byId("packed").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  };
  const ODD_SPLIT = /([\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0])/u;
  const ODD = /^[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]$/u;
  // hostile text stays text, and what cannot be seen or turns the line around is shown by its number
  const write = (parent, text) => {
    for (const piece of text.split(ODD_SPLIT)) {
      if (!piece) continue;
      if (ODD.test(piece) && piece !== "\n" && piece !== "\t") parent.append(make("span", `U+${piece.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`, "odd"));
      else parent.append(piece);
    }
    return parent;
  };
  const plain = (text) => write(make("span"), text);
  // where two texts differ, between what they begin and end with alike: [start, end] in the first
  const difference = (text, other) => {
    const a = [...text], b = [...other];
    let start = 0, end = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
    return [a.slice(0, start).join("").length, text.length - a.slice(a.length - end).join("").length];
  };
  const compared = (block, text, other) => {
    const [start, end] = difference(text, other);
    write(block, text.slice(0, start));
    if (end > start) block.append(write(make("em", undefined, "differs"), text.slice(start, end)));
    return write(block, text.slice(end));
  };
  const written = (row, other) => {
    const block = make("pre");
    block.tabIndex = 0;
    if (row[5] < 0) return other === undefined ? write(block, row[1]) : compared(block, row[1], other);
    write(block, row[1].slice(0, row[5]));
    block.append(write(make("mark"), row[1].slice(row[5])));
    return block;
  };

  const start = (data) => {
    const kinds = data.kinds;
    const chosen = { task: byId("task"), variant: byId("variant"), kind: byId("kind"), flip: byId("flip"), search: byId("search") };
    const fill = (select, names, kept) => {
      select.replaceChildren(...names.map(([value, text]) => { const o = make("option", text); o.value = value; return o; }));
      if (names.some(([value]) => value === kept)) select.value = kept;
    };
    let rows = [], page = 0;
    const task = () => data.tasks[chosen.task.value];
    const before = () => new Map((task().variants[data.base] || []).map((row) => [row[0], row]));
    const lists = () => {
      const names = Object.keys(task().variants);
      fill(chosen.variant, names.map((name) => [name, name]), chosen.variant.value || (names.includes(data.open) ? data.open : names[1] || names[0]));
      const seen = new Set(Object.values(task().variants).flatMap((all) => all.flatMap((row) => row[3])));
      const known = kinds.map((kind, i) => [String(i), kind]).filter(([i]) => seen.has(Number(i)));
      fill(chosen.kind, [["", "all"], ["right", "right"], ["failed", "any but right"], ...known], chosen.kind.value);
    };
    const FLIPS = [["", "all"], ["lost", "right → wrong"], ["gained", "wrong → right"], ["any", "either way"], ["same", "unchanged"]];
    const flipped = (row, old) => (!old || old[2] === null || row[2] === null ? "" : old[2] > row[2] ? "lost" : old[2] < row[2] ? "gained" : "same");
    const fits = (row, old) => {
      const { kind, flip, search } = { kind: chosen.kind.value, flip: chosen.flip.value, search: chosen.search.value.toLowerCase() };
      const change = flipped(row, old);
      if (kind === "right" ? row[2] !== 1 : kind === "failed" ? row[2] === 1 : kind !== "" && !row[3].includes(Number(kind))) return false;
      if (flip === "any" ? change !== "lost" && change !== "gained" : flip !== "" && change !== flip) return false;
      return !search || row[1].toLowerCase().includes(search) || (task().prompts[row[0]] || "").toLowerCase().includes(search);
    };
    const verdict = (row) => (row[2] === 1 ? "right" : row[2] === 0 ? "wrong" : "not judged");
    const outcome = (row) => [verdict(row), ...row[3].map((i) => kinds[i]).filter((kind) => kind !== "wrong"), ...(row[6] ? [`${row[6]} is not in the sandbox`] : [])].join(", ");
    const side = (name, row, other) => {
      const box = make("div");
      box.append(make("h4", row ? `${name}: ${outcome(row)}${row[4] === null ? "" : `, ${row[4]} tokens`}` : name));
      box.append(row ? written(row, other) : make("p", "no answer kept here"));
      const gold = row && task().golds[row[0]];
      if (gold && row[7]) {
        const read = make("p", "read as ");
        box.append(row[2] === 0 ? compared(read, row[7], gold) : write(read, row[7]));
      }
      return box;
    };
    const open = (item, row, old, button) => {
      const shown = item.querySelector(".detail");
      button.setAttribute("aria-expanded", String(!shown));
      if (shown) { shown.remove(); return; }
      const detail = make("div", undefined, "detail");
      const prompt = make("div");
      prompt.append(make("h4", "prompt"), write(Object.assign(make("pre"), { tabIndex: 0 }), task().prompts[row[0]] || ""));
      const pair = make("div", undefined, "pair"), gold = task().golds[row[0]];
      if (gold) prompt.append(make("h4", "right answer"), write(Object.assign(make("pre", undefined, "gold"), { tabIndex: 0 }), gold));
      if (chosen.variant.value !== data.base) pair.append(side(data.base, old));
      pair.append(side(chosen.variant.value, row, chosen.variant.value !== data.base && old ? old[1] : undefined));
      detail.append(prompt, pair);
      item.append(detail);
    };
    const line = (row, old) => {
      const item = make("li"), button = make("button", undefined, "row");
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      const text = plain(row[1].slice(0, 160).replace(/\s+/g, " "));
      text.className = "text";
      button.append(make("span", `item ${row[0]}`), make("span", outcome(row), verdict(row)), text);
      button.addEventListener("click", () => open(item, row, old, button));
      item.append(button);
      return item;
    };
    const paint = () => {
      const old = before(), from = page * PAGE, shown = rows.slice(from, from + PAGE), kept = task().variants[chosen.variant.value].length;
      byId("answers").replaceChildren(...shown.map((row) => line(row, old.get(row[0]))));
      const where = rows.length ? `${from + 1} to ${from + shown.length} of ` : "";
      byId("found").textContent = `${where}${rows.length} answers, out of ${kept} of this model in this page; ${task().total} on this task in the run's samples folder.`;
      byId("previous").disabled = page === 0;
      byId("next").disabled = from + PAGE >= rows.length;
    };
    const filter = () => {
      const old = before();
      rows = task().variants[chosen.variant.value].filter((row) => fits(row, old.get(row[0])));
      page = 0;
      paint();
    };
    const turn = (by) => { page += by; paint(); };
    fill(chosen.task, Object.keys(data.tasks).map((name) => [name, name]), data.target); // the first where the target has no answers
    fill(chosen.flip, FLIPS, "");
    lists();
    chosen.task.addEventListener("change", () => { lists(); filter(); });
    for (const select of [chosen.variant, chosen.kind, chosen.flip]) select.addEventListener("change", filter);
    chosen.search.addEventListener("input", filter);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("previous").addEventListener("click", () => turn(-1));
    byId("next").addEventListener("click", () => turn(1));
    chosen.flip.value = "lost"; // what pruning broke, where it broke something
    filter();
    if (!rows.length) {
      chosen.flip.value = "";
      filter();
    }
    // what a click on a chart asks for: the arm's variant nearest to the place, or the variant itself, and the kind
    const show = (row, removed) => {
      if (!data.tasks[row.task]) return;
      const points = data.arms.filter(([arm, , , name]) => arm === row.arm && name === row.task);
      points.sort((a, b) => Math.abs(a[1] - removed) - Math.abs(b[1] - removed));
      chosen.task.value = row.task;
      lists();
      chosen.variant.value = row.variant || (points.length ? points[0][2][0] : data.base);
      chosen.kind.value = row.kind === "right" ? "right" : String(kinds.indexOf(row.kind));
      chosen.flip.value = "";
      filter();
      byId("samples").scrollIntoView();
    };
    browser = { show };
    byId("samples").dataset.ready = "yes";
  };
  const told = () => { byId("found").textContent = "This browser cannot unpack the answers; they are in the run's samples folder."; };
  if (byId("packed")) unpack().then(start, told);
})();
