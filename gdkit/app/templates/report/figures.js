// The figures. draw() builds a figure; mark() highlights the run that is pointed at and the pinned runs.

const RADIUS = 34; // pixels from the pointer within which a mark is selected

// ---- A measure along an axis: seeds as points and a band, their median as a line, regimes behind or above ----

function scoreFigure(app, holder, view) {
  const { sweep } = app;
  const figure = { holder, view, radius: RADIUS, points: [], lines: [] };
  const read = view.raw ? finite : score; // sharpness and the like are shown for diverged runs too

  let lines = [];
  let scores = [];

  figure.draw = () => {
    const shown = [...app.state.on].sort((a, b) => a - b).filter((i) => has(sweep.optimizers[i], view.axis));
    lines = shown.map((i) => lineAlong(sweep, i, view.axis, app.state.at));
    scores = lines.map((line) => line.rows.map((rows) => rows.map((row) => read(sweep, view.measure, row))));
    figure.paint();
  };

  figure.paint = () => {
    const { width, height, picture } = canvas(holder);
    const strip = lines.length > 1 && view.axis !== "optimizer" ? 11 * Math.min(lines.length, 12) + 4 : 0;
    const box = { left: 58, right: width - 12, top: 24 + strip, bottom: height - 48 };
    const values = distinct(lines.flatMap((line) => line.values));
    const across = axisScale(sweep, view.axis, values, box.left, box.right, false, view.across);
    const up = lossScale(scores.flat(2), box.bottom - 2, box.top + 14, isLinear(sweep, view, scores), isMaximized(sweep, view.measure));
    Object.assign(figure, { lines, box, points: [] }, windowed(figure, across, up));
    const { x, y } = figure;
    if (lines.length === 1) drawBands(sweep, picture, lines[0], x, box);
    else if (strip) lines.slice(0, 12).forEach((line, i) => drawStrip(sweep, picture, line, x, box, 20 + 11 * i));
    drawAxes(picture, box, x, y, titleOf(view.axis), titleOf(view.measure) + (isMaximized(sweep, view.measure) ? " (higher is better)" : ""));
    const inner = clipped(picture, view.name, box);
    lines.forEach((line, i) => drawLine(figure, inner, line, scores[i], lines.length === 1, sweep));
    lines.forEach((line) => drawEdges(app, figure, picture, line, lines.length === 1));
    drawBest(app, figure, picture);
    if (!view.window) drawBeyond(figure, picture, scores.flat(2));
    if (lines.length && up.empty) picture.append(note(box, view.raw ? "No run recorded this quantity." : "Every run diverged."));
    if (!lines.length) picture.append(note(box, "None of the selected optimizers has this axis."));
    mount(app, figure, picture, `${humanize(view.measure)} by ${humanize(view.axis)}`);
  };

  figure.mark = () => drawRings(app, figure, 8);
  return figure;
}

// Rings around the points of the run that is pointed at and of the pinned runs, these with their numbers.
function drawRings(app, figure, r) {
  figure.overlay.replaceChildren();
  for (const point of figure.points) {
    const [now, place] = [point.rows.includes(app.state.hovered), pinnedPlace(app, point)];
    if (now || place >= 0) figure.overlay.append(svg("circle", { class: now ? "ring now" : "ring", cx: point.x, cy: point.y, r }));
    if (place >= 0) figure.overlay.append(number(point, place + 1));
  }
}

// The place among the pinned runs of the first pinned run at a point; -1 if there is none.
const pinnedPlace = (app, { rows }) => rows.map((row) => app.state.pinned.indexOf(row)).find((place) => place >= 0) ?? -1;

const note = (box, text) =>
  svg("text", { class: "note", x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, "text-anchor": "middle" }, [text]);
const number = (point, n) => svg("text", { class: "number", x: point.x + 10, y: point.y - 8 }, [String(n)]);
const isLinear = (sweep, view, scores) => view.linear ?? (isMaximized(sweep, view.measure) || view.measure.startsWith("lyapunov") || scores.flat(2).some((s) => s < 0));

// A recorded number; infinite if there is none.
function finite(sweep, name, row) {
  const value = sweep.columns.get(name).values[row];
  return Number.isFinite(value) ? value : Infinity;
}

// Contiguous values with one regime: [code, left, right] in pixels.
function findStretches(sweep, line, x) {
  const ends = borders(line.values.map(x.of));
  const stretches = [];
  line.rows.forEach((rows, i) => {
    const code = mostCommonRegime(sweep, rows);
    if (stretches.length && stretches.at(-1)[0] === code) stretches.at(-1)[2] = ends[i + 1];
    else stretches.push([code, ends[i], ends[i + 1]]);
  });
  return stretches;
}

function drawBands(sweep, picture, line, x, box) {
  for (const [code, left, right] of findStretches(sweep, line, x)) {
    const [a, b] = [Math.max(left, box.left), Math.min(right, box.right)];
    picture.append(svg("rect", { class: `band r${code}`, x: a, y: box.top, width: Math.max(b - a, 0), height: box.bottom - box.top }));
  }
  drawShares(sweep, picture, line, x, box, box.top - 7, 7);
}

function drawStrip(sweep, picture, line, x, box, top) {
  const mark = svg("line", { class: `line ${line.optimizer.look}`, x1: box.left - 26, x2: box.left - 4, y1: top + 4.5, y2: top + 4.5 });
  picture.append(mark);
  drawShares(sweep, picture, line, x, box, top, 9);
}

// One column per value, divided into the shares of its regimes, diverged runs on top.
function drawShares(sweep, picture, line, x, box, top, height) {
  const ends = borders(line.values.map(x.of)).map((at) => Math.min(Math.max(at, box.left), box.right).toFixed(1));
  const paths = sweep.regimes.map(() => "");
  line.rows.forEach((rows, i) => {
    let low = top + height;
    regimeCounts(sweep, rows).forEach((count, code) => {
      const high = low - (height * count) / rows.length;
      if (count) paths[code] += `M${ends[i]} ${low.toFixed(2)}H${ends[i + 1]}V${high.toFixed(2)}H${ends[i]}Z`;
      low = high;
    });
  });
  paths.forEach((d, code) => d && picture.append(svg("path", { class: `fill share r${code}`, d })));
}

// Draws the median as a line and the seeds as a band; marks show the regime of each seed or, in the color of the line
// where there are several lines, the most common regime. Runs without a finite number are at the top, one row per line.
function drawLine(figure, picture, line, scores, alone, sweep) {
  const { x, y, box } = figure;
  const color = line.optimizer.look;
  const place = figure.lines.indexOf(line);
  const top = box.top + (alone ? 6 : 2.5 + (9 * place) / (figure.lines.length - 1));
  const clamp = (at) => Math.min(Math.max(at, box.top + 14), box.bottom - 2); // numbers beyond the scale are drawn at its end
  const inside = (value) => (figure.view.window?.y ? Math.min(Math.max(y.of(value), -1e4), 1e4) : clamp(y.of(value)));
  const upper = [], lower = [], middle = [], marks = new Map();
  line.values.forEach((value, i) => {
    const at = x.of(value);
    const finite = scores[i].filter(Number.isFinite);
    if (finite.length) {
      upper.push([at, inside(largest(finite))]);
      lower.unshift([at, inside(smallest(finite))]);
    }
    const center = median(scores[i]);
    middle.push(Number.isFinite(center) ? [at, inside(center)] : null);
    const put = (code, up) => {
      if (!inBox(box, at, up)) return;
      const kind = `${sweep.regimes[code].marker} ${alone ? `r${code}` : color}`;
      if (!marks.has(kind)) marks.set(kind, []);
      marks.get(kind).push([at, up]);
    };
    line.rows[i].forEach((row, seed) => {
      const up = Number.isFinite(scores[i][seed]) ? inside(scores[i][seed]) : top;
      if (alone) put(regimeOf(sweep, row), up);
      if (inBox(box, at, up)) figure.points.push({ row, rows: [row], x: at, y: up, line: place, value: i });
    });
    if (!alone) put(mostCommonRegime(sweep, line.rows[i]), Number.isFinite(center) ? inside(center) : top);
  });
  if (upper.length > 1) picture.append(svg("path", { class: `spread ${color}`, d: `${polyline([...upper, ...lower])}Z` }));
  for (const stretch of splitAtGaps(middle)) picture.append(svg("path", { class: `line ${color}`, d: polyline(stretch) }));
  const size = figure.points.length > 1500 ? 2 : alone ? 3.6 : 3;
  for (const [kind, places] of marks) {
    const [marker, ...own] = kind.split(" ");
    picture.append(svg("path", { class: `mark ${own.join(" ")} ${marker === "X" ? "diverged" : ""}`, d: places.map(([a, b]) => markPath(marker, a, b, size)).join("") }));
  }
}

// Parts of a list between its gaps.
function splitAtGaps(places) {
  const parts = [[]];
  for (const place of places) place ? parts.at(-1).push(place) : parts.push([]);
  return parts.filter((part) => part.length);
}

function drawEdges(app, figure, picture, line, alone) {
  const { x, box } = figure;
  const color = line.optimizer.look;
  const edge = x.kind === "text" ? null : edgeOf(app.sweep, line);
  if (edge !== null && isInside(x, edge)) verticalLine(picture, x.of(edge), box, `edge ${color}`, alone ? `edge ${short(edge)}` : "");
  const theory = theoryOf(app.sweep, line);
  if (theory !== null && theory > x.low && theory < x.high) {
    verticalLine(picture, x.of(theory), box, `theory ${color}`, alone ? `theory ${short(theory)}` : "", 16);
  }
}

function verticalLine(picture, at, box, kind, text, down = 0) {
  picture.append(svg("line", { class: kind, x1: at, x2: at, y1: box.top, y2: box.bottom }));
  const left = at > (box.left + box.right) / 2;
  const place = { class: "note", x: at + (left ? -5 : 5), y: box.top + 27 + down, "text-anchor": left ? "end" : "start" };
  if (text) picture.append(svg("text", place, [text]));
}

// The critical learning rate at the median sharpness of the converged runs, if sharpness was recorded.
function theoryOf(sweep, line) {
  const name = ["sharpness", "preconditioned_sharpness"].find((n) => sweep.columns.has(n));
  if (!name || line.axis !== "learning_rate" || line.optimizer.theory === null) return null;
  const values = line.rows.flat().filter((row) => regimeOf(sweep, row) === CONVERGED).map((row) => cell(sweep, name, row));
  const sharpness = median(values.filter((value) => value > 0));
  return sharpness > 0 ? line.optimizer.theory / sharpness : null;
}

// A star at the best value of each line; one that would cover another is above it, with a line to its place.
function drawBest(app, figure, picture) {
  if (figure.view.measure !== app.sweep.by) return;
  const stars = [];
  for (const line of figure.lines.filter((one) => one.optimizer.score !== null)) {
    const own = figure.points.filter((p) => figure.lines[p.line] === line && line.rows[p.value].includes(line.optimizer.best));
    if (!own.length) continue;
    const [x, at] = [own[0].x, median(own.map((p) => p.y))];
    let y = at;
    while (stars.some(([a, b]) => Math.hypot(a - x, b - y) < 20)) y -= 4;
    stars.push([x, y]);
    if (y < at) picture.append(svg("line", { class: `leader ${line.optimizer.look}`, x1: x, x2: x, y1: y, y2: at }));
    picture.append(svg("path", { class: `star ${line.optimizer.look}`, d: markPath("*", x, y, 7) }));
  }
}

// Writes at the ends of the scale how many numbers lie beyond them.
function drawBeyond({ y, box }, picture, values) {
  const above = values.filter((value) => Number.isFinite(value) && value > y.high).length;
  const below = values.filter((value) => Number.isFinite(value) && value < y.low).length;
  const label = (count, text, at) => count && picture.append(svg("text", { class: "note beyond", x: box.right - 4, y: at, "text-anchor": "end" }, [`${count.toLocaleString("en")} ${text}`]));
  label(above, `above ${short(y.high)} ↑`, box.top + 26);
  label(below, smallest(values) === 0 && y.low > 0 && below === values.filter((value) => value === 0).length ? "at 0 ↓" : `below ${short(y.low)} ↓`, box.bottom - 6);
}

// The point nearest to the pointer; null if none is near.
function nearestOf(points, px, py, radius) {
  let nearest = null;
  let least = radius * radius;
  for (const point of points) {
    const distance = (point.x - px) ** 2 + (point.y - py) ** 2;
    if (distance < least) [nearest, least] = [point, distance];
  }
  return nearest;
}
