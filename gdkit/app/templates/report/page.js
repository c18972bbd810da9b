// The page: its state (chosen values, the run pointed at, pinned runs), its figures and their choosers.

function startPage() {
  const source = document.getElementById("sweep");
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copyText(button));
  }
  document.querySelectorAll("table.cards").forEach(foldCards);
  const app = {};
  printWhole(app);
  const seconds = Number(document.documentElement.dataset.reload ?? 0);
  if (!source) {
    restoreChoices(app);
    if (seconds) reloadAfter(app, seconds);
    return;
  }
  const sweep = readSweep(JSON.parse(source.textContent));
  sweep.several = new Set(sweep.columns.get("seed").values).size > 1;
  const state = { on: new Set(sweep.optimizers.keys()), at: {}, pinned: [], hovered: null };
  Object.assign(app, { sweep, state, figures: [], card: document.getElementById("card"), announcement: document.getElementById("announcement"), pins: document.getElementById("pins") });
  for (const part of document.querySelectorAll(".interactive")) part.hidden = false;

  app.draw = () => app.figures.forEach((figure) => figure.draw());
  app.hover = (figure, point) => {
    if (figure.current === point || (point && figure.current?.row === point.row && figure.current.x === point.x)) return;
    for (const one of app.figures) one.current = null;
    figure.current = point;
    state.hovered = point ? point.row : null;
    for (const one of app.figures) one.mark();
    showCard(app, figure, point);
  };
  app.pin = (row) => {
    state.pinned = state.pinned.includes(row) ? state.pinned.filter((r) => r !== row) : [...state.pinned.slice(-7), row];
    for (const one of app.figures) one.mark();
    app.table.mark();
    listPinned(app);
  };

  buildScores(app);
  buildMap(app);
  buildParallel(app);
  buildStability(app);
  app.table = runsTable(app, document.getElementById("runs"));
  app.draw();
  redrawWhenResized(app);
  const follow = () => app.figures.filter((figure) => figure.current).forEach((figure) => placeCard(app.card, figure, figure.current));
  document.addEventListener("scroll", follow, { passive: true });
  const initial = readChoices(app);
  if (!restoreChoices(app)) restoreAddress(app);
  followChoices(app, initial);
  if (seconds) reloadAfter(app, seconds);
  performance.mark("drawn");
  document.documentElement.dataset.drawn = "yes";
}

// On a narrow screen, where rows are cards, hides the less important columns behind a button.
function foldCards(table) {
  if (!table.querySelector(".more")) return;
  const button = html("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => {
    button.setAttribute("aria-expanded", String(!table.classList.toggle("short")));
    button.textContent = table.classList.contains("short") ? "All columns" : "Fewer columns";
  } }, ["All columns"]);
  table.classList.add("short");
  table.parentElement.after(button);
}

// Opens closed details for printing, and draws figures at the width of the paper, so that their labels are legible.
function printWhole(app) {
  const closed = [];
  const layOut = (paper) => {
    document.documentElement.classList.toggle("paper", paper);
    app.draw?.();
  };
  addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll("details:not([open])"));
    closed.forEach((part) => { part.open = true; });
    layOut(true);
  });
  addEventListener("afterprint", () => {
    closed.splice(0).forEach((part) => { part.open = false; });
    layOut(false);
  });
}

// A labeled choice; `empty` is the text of the empty value.
function chooser(label, values, empty, choose, chosen = values[0], format = (value) => short(value)) {
  const options = values.map((value, i) => {
    const option = html("option", { value: String(i), ...(describe(value) ? { title: describe(value) } : {}) }, [value === "" ? empty : format(value)]);
    option.selected = value === chosen;
    return option;
  });
  const select = html("select", { onchange: () => choose(values[Number(select.value)]) }, options);
  return html("label", { class: "chooser" }, [html("span", {}, [label]), select]);
}

const KINDS = ["validation", "test", "training", "about the run"];
const measuresOf = (sweep) => [...new Set([sweep.by, ...KINDS.flatMap((kind) => sweep.measures[kind] ?? [])])];

function buildScores(app) {
  const { sweep } = app;
  const holder = document.getElementById("scores");
  const axes = Object.keys(sweep.axes);
  const first = sweep.axis ?? axes[0] ?? "optimizer";
  const sign = isMaximized(sweep, sweep.by) ? -1 : 1;
  const reached = sweep.optimizers.map((optimizer) => (optimizer.score === null ? Infinity : sign * optimizer.score));
  const view = { name: "scores", axis: first, measure: sweep.by, linear: undefined };
  const curves = { name: "curves", what: "loss", axis: first, optimizer: reached.indexOf(smallest(reached)), seed: valuesOf(sweep, "seed")[0], log: true, smooth: 1 };
  const score = scoreFigure(app, holder.querySelector(".score .plot"), view);
  const curve = curveFigure(app, holder.querySelector(".curves .plot"), curves);
  app.figures.push(score, curve);

  const showLegend = () => legendOf(app, curves, holder.querySelector(".curves .key"));
  const set = (figure) => (name) => (value) => {
    figure.view[name] = value;
    if (["measure", "what", "axis"].includes(name)) figure.view.window = null; // other numbers
    figure.draw();
    showLegend();
  };
  const fixers = axes.length > 1 ? axes.map((axis) => fixChooser(app, axis)) : [];
  const along = (axis) => {
    fixers.forEach((fixer, i) => { fixer.hidden = axes[i] === axis; });
    for (const figure of [score, curve]) set(figure)("axis")(axis);
  };
  fixers.forEach((fixer, i) => { fixer.hidden = axes[i] === first; });
  const alongs = axes.length > 1 ? [chooser("Along", axes, "", along, first, humanize)] : [];
  fillControls(app, score, holder.querySelector(".score .controls"), [...scoreChoices(sweep, view, set(score), alongs), ...fixers]);
  fillControls(app, curve, holder.querySelector(".curves .controls"), curveChoices(sweep, curves, set(curve)));
  if (sweep.optimizers.length > 1) holder.querySelector(".score .chips").append(...sweep.optimizers.map((_, i) => toggle(app, i, score)));
  holder.querySelector(".score .key").append(...regimeKey(sweep), ...starKey(sweep), ...edgeKey(sweep));
  showLegend();
}

const verticalChoice = (set) => chooser("Vertical scale", [undefined, true], "", set("linear"), undefined, (v) => (v ? "linear" : "log where possible"));

const scoreChoices = (sweep, view, set, alongs) => [
  chooser("Measure", measuresOf(sweep), "", set("measure"), view.measure, humanize),
  ...alongs,
  chooser("Horizontal scale", [null, "linear", "log"], "", set("across"), null, (v) => v ?? "as in the sweep"),
  verticalChoice(set),
];

function curveChoices(sweep, view, set) {
  const names = curveNames(sweep);
  return [
    ...(names.length > 1 ? [chooser("Curve", names, "", set("what"), view.what, humanize)] : []),
    ...(sweep.optimizers.length > 1 ? [chooser("Curves of", [...sweep.optimizers.keys()], "", set("optimizer"), view.optimizer, (i) => sweep.optimizers[i].label)] : []),
    chooser("Steps", [true, false], "", set("log"), view.log, (v) => (v ? "log" : "linear")),
    verticalChoice(set),
    ...(sweep.several ? [chooser("Seed", [...valuesOf(sweep, "seed"), ...Object.keys(BANDS)], "", set("seed"), view.seed, (v) => BANDS[v] ?? short(v))] : []),
    chooser("Smoothing", [1, 5, 15, 45], "", set("smooth"), view.smooth, (n) => (n > 1 ? `mean of ${n} points` : "none")),
  ];
}

// Adds the controls of a figure, folded on a narrow screen, and the buttons that zoom and save it.
function fillControls(app, figure, holder, choices) {
  const zoom = figure.paint ? [zoomButtons(app, figure)] : [];
  const fold = html("button", { type: "button", class: "fold", "aria-expanded": "false", onclick: () => fold.setAttribute("aria-expanded", String(holder.classList.toggle("open"))) }, ["Options"]);
  holder.replaceChildren(fold, ...choices, ...zoom, ...exportButtons(app, figure, figure.view.name));
}

// The values of the other axes; by default those at the best point of each optimizer.
function fixChooser(app, axis) {
  const values = valuesOf(app.sweep, axis);
  const choose = (value) => {
    if (value === "") delete app.state.at[axis];
    else app.state.at[axis] = value;
    app.draw();
  };
  return chooser(`${humanize(axis)} at`, ["", ...values], "its best value", choose, app.state.at[axis] ?? "");
}

function toggle(app, index, figure) {
  const { sweep, state } = app;
  const button = html("button", { type: "button", class: "chip", "aria-pressed": "true" }, [seriesBadge(sweep.optimizers[index]), sweep.optimizers[index].label]);
  button.addEventListener("click", () => {
    if (state.on.has(index) && state.on.size === sweep.optimizers.length) state.on = new Set([index]); // the first click hides all others
    else if (!state.on.delete(index)) state.on.add(index);
    if (!state.on.size) state.on = new Set(sweep.optimizers.keys());
    button.parentElement.querySelectorAll("button").forEach((one, i) => one.setAttribute("aria-pressed", String(state.on.has(i))));
    figure.draw();
  });
  return button;
}

// The regimes that occur, with their marks.
function regimeKey(sweep) {
  const present = [...sweep.regimes.keys()].filter((code) => countOf(sweep, code));
  return present.map((code) => html("li", {}, [regimeBadge(sweep, code), sweep.regimes[code].name]));
}

function starKey(sweep) {
  const star = svg("path", { class: "star ink", d: markPath("*", 0, 0, 5) });
  return sweep.optimizers.some((optimizer) => optimizer.score !== null) ? [html("li", {}, [badge(star), "best"])] : [];
}

function edgeKey(sweep) {
  const dash = svg("line", { class: "edge ink", x1: 0, x2: 0, y1: -8, y2: 8 });
  const edges = [...sweep.edges.values()].some((values) => values.some((edge) => edge > 0));
  return edges ? [html("li", {}, [badge(dash), "training diverges above"])] : [];
}

// The colors of a ramp, from the lowest to the highest value.
function ramp() {
  const rects = Array.from({ length: 16 }, (_, i) => svg("rect", { class: `fill q${i}`, x: i, y: 0, width: 1.02, height: 1 }));
  return svg("svg", { class: "ramp", viewBox: "0 0 16 1", preserveAspectRatio: "none", "aria-hidden": "true" }, rects);
}

// The colors of the curves, from the lowest to the highest value of the axis.
function legendOf(app, view, holder) {
  const { sweep } = app;
  const optimizer = sweep.optimizers[view.optimizer];
  if (view.axis === "optimizer" || !has(optimizer, view.axis)) return holder.replaceChildren();
  const values = lineAlong(sweep, view.optimizer, view.axis, app.state.at).values;
  const first = `${humanize(view.axis)} ${short(values[0])}`;
  const colors = values.length < 2 ? [first] : [`${first} `, ramp(), ` ${short(values.at(-1))}`];
  return holder.replaceChildren(html("li", {}, colors), html("li", {}, ["end marker: outcome"]));
}

function buildMap(app) {
  const { sweep } = app;
  const holder = document.getElementById("map");
  const suitable = sweep.optimizers.map((o, i) => [o, i]).filter(([o]) => o.dimensions.flat().length > 1);
  holder.hidden = !suitable.length;
  if (!suitable.length) return;
  const [optimizer, index] = suitable[0];
  const axes = optimizer.dimensions.flat();
  const x = axes.includes(sweep.axis) ? sweep.axis : axes[0];
  const view = { name: "map", optimizer: index, x, y: "", z: "", fill: "regime", measure: sweep.by };
  const figure = mapFigure(app, holder.querySelector(".plot"), view);
  app.figures.push(figure);
  const controls = holder.querySelector(".controls");
  const build = () => {
    const [names, panels] = validateAxes(sweep, view);
    const set = (name) => (value) => { view[name] = value; build(); figure.draw(); mapKey(sweep, view, holder.querySelector(".key")); };
    const fills = ["regime", ...measuresOf(sweep), ...(sweep.measures.stability ?? [])];
    const choices = [chooser("Color", fills, "", set("fill"), view.fill, humanize)];
    if (suitable.length > 1) choices.unshift(chooser("Optimizer", suitable.map(([, i]) => i), "", set("optimizer"), view.optimizer, (i) => sweep.optimizers[i].label));
    if (names.length > 2) choices.push(chooser("Horizontal", names, "", set("x"), view.x, humanize), chooser("Vertical", names, "", set("y"), view.y, humanize));
    if (panels.length) choices.push(chooser("Panels", ["", ...panels], "(one panel)", set("z"), view.z, humanize));
    const rest = panels.filter((name) => name !== view.z);
    const isOpen = controls.classList.contains("open");
    fillControls(app, figure, controls, [...choices, ...rest.map((name) => fixChooser(app, name))]);
    controls.querySelector(".fold").setAttribute("aria-expanded", String(isOpen));
  };
  build();
  figure.draw();
  mapKey(sweep, view, holder.querySelector(".key"));
}

// Restricts the axes of the map to those of its optimizer; returns all, and those that can have one panel per value.
function validateAxes(sweep, view) {
  const { dimensions } = sweep.optimizers[view.optimizer];
  const names = dimensions.flat();
  if (!names.includes(view.x)) view.x = names[0];
  if (!names.includes(view.y) || view.y === view.x) view.y = names.find((name) => name !== view.x);
  const panels = dimensions.filter((own) => !own.includes(view.x) && !own.includes(view.y)).flat();
  if (view.z !== "" && !panels.includes(view.z)) view.z = panels[0] ?? "";
  if (view.z === "" && view.panels === undefined) view.z = panels[0] ?? "";
  view.panels = panels;
  return [names, panels];
}

function mapKey(sweep, view, holder) {
  const border = countOf(sweep, DIVERGED) ? [html("li", {}, ["line: where divergence begins"])] : [];
  if (view.fill === "regime") return holder.replaceChildren(...regimeKey(sweep), ...border, ...starKey(sweep));
  const [low, high] = view.range ?? [NaN, NaN];
  return holder.replaceChildren(html("li", {}, [`${humanize(view.fill)} ${formatValue(view.fill, low)} `, ramp(), ` ${formatValue(view.fill, high)}`]), html("li", {}, [`${isMaximized(sweep, view.fill) ? "higher is better; " : ""}median over seeds; grey: most diverged`]), ...starKey(sweep));
}

// For optimizers with three axes or more, of which maps show two.
function buildParallel(app) {
  const { sweep } = app;
  const holder = document.getElementById("parallel");
  const suitable = [...sweep.optimizers.keys()].filter((i) => sweep.optimizers[i].dimensions.flat().length > 2);
  holder.hidden = !suitable.length;
  if (!suitable.length) return;
  const view = { name: "parallel", optimizer: suitable[0], fill: sweep.by };
  const figure = parallelFigure(app, holder.querySelector(".plot"), view);
  app.figures.push(figure);
  const set = (name) => (value) => { Object.assign(view, { [name]: value, window: null }); figure.draw(); };
  const choices = [chooser("Measure", measuresOf(sweep), "", set("fill"), view.fill, humanize)];
  if (suitable.length > 1) choices.unshift(chooser("Optimizer", suitable, "", set("optimizer"), view.optimizer, (i) => sweep.optimizers[i].label));
  fillControls(app, figure, holder.querySelector(".controls"), choices);
}

function buildStability(app) {
  const { sweep } = app;
  const holder = document.getElementById("stability");
  const names = sweep.measures.stability ?? [];
  holder.hidden = !names.length;
  if (!names.length) return;
  const view = { name: "stability", axis: sweep.axis ?? Object.keys(sweep.axes)[0] ?? "optimizer", measure: names[0], linear: undefined, raw: true };
  const figure = scoreFigure(app, holder.querySelector(".plot"), view);
  const paint = figure.paint;
  figure.paint = () => { paint(); drawTheory(app, figure); };
  app.figures.push(figure);
  const choose = (name) => { Object.assign(view, { measure: name, window: null }); figure.draw(); };
  fillControls(app, figure, holder.querySelector(".controls"), names.length > 1 ? [chooser("Quantity", names, "", choose, names[0], humanize)] : []);
}

// The largest stable sharpness at each learning rate; 0 for the Lyapunov exponent, above which differences grow.
function drawTheory(app, figure) {
  const { x, y, box, lines, view } = figure;
  if (view.measure.startsWith("lyapunov") && y.low < 0 && y.high > 0) {
    figure.overlay.before(svg("line", { class: "theory ink", x1: box.left, x2: box.right, y1: y.of(0), y2: y.of(0) }));
  }
  if (!view.measure.includes("sharpness") || view.axis !== "learning_rate" || y.kind !== "log") return;
  for (const line of lines.filter((one) => one.optimizer.theory !== null)) {
    const path = line.values.filter((v) => v > 0).map((v) => [x.of(v), y.of(line.optimizer.theory / v)]).filter(([a, b]) => inBox(box, a, b));
    if (path.length > 1) figure.overlay.before(svg("path", { class: `theory ${lines.length > 1 ? line.optimizer.look : "ink"}`, d: polyline(path) }));
  }
}

function redrawWhenResized(app) {
  let width = document.documentElement.clientWidth;
  new ResizeObserver(() => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    app.draw();
  }).observe(document.documentElement);
}

async function copyText(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed here, as for local files in some browsers: select the text instead
    const range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copy));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

startPage();
