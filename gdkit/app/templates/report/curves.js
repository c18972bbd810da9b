// Recorded curves: one line per value of the axis, colored by it; a diverged run is drawn to where it leaves the picture.

const MAX_CURVES = 160; // a reader cannot distinguish more
const MAX_BANDS = 24;
const BANDS = { range: "mean, min–max", interval: "mean, 95 % interval" }; // over seeds

function curveFigure(app, holder, view) {
  const { sweep } = app;
  const figure = { holder, view, radius: RADIUS, points: [], curves: [] };

  figure.draw = () => {
    figure.curves = curvesShown(app, view);
    figure.paint();
  };

  figure.paint = () => {
    const { width, height, picture } = canvas(holder);
    const box = { left: 58, right: width - 16, top: 24, bottom: height - 48 };
    Object.assign(figure, { box, points: [] }, windowed(figure, ...curveScales(sweep, figure.curves, view, box)));
    drawAxes(picture, box, figure.x, figure.y, "step", curveTitle(view));
    const inner = clipped(picture, view.name, box);
    const ends = svg("g");
    for (const curve of figure.curves) drawCurve(sweep, figure, curve, inner, ends);
    picture.append(ends);
    if (!figure.curves.length) picture.append(note(box, "This page holds no curves of these runs."));
    else if (!figure.points.length && !view.window) picture.append(note(box, "No curve has a finite value."));
    mount(app, figure, picture, `${figure.curves.length} curves of ${humanize(view.what)}`);
  };

  figure.mark = () => {
    figure.inner = svg("g", { "clip-path": `url(#clip-${view.name})` });
    figure.overlay.replaceChildren(figure.inner);
    app.state.pinned.forEach((row, i) => overlayCurve(app, figure, row, i + 1));
    if (app.state.hovered !== null && !app.state.pinned.includes(app.state.hovered)) overlayCurve(app, figure, app.state.hovered, 0);
  };

  return figure;
}

// Curves of one optimizer, of one seed or their mean, thinned evenly; shade is the position along the axis, from 0 to 1.
function curvesShown(app, view) {
  const { sweep } = app;
  const optimizer = sweep.optimizers[view.optimizer];
  if (!optimizer) return [];
  const isAlong = has(optimizer, view.axis);
  const groups = isAlong ? lineAlong(sweep, view.optimizer, view.axis, app.state.at).rows : [rowsAlong(sweep, optimizer, [], app.state.at)];
  const place = (i) => ({ value: i, shade: groups.length > 1 ? i / (groups.length - 1) : 0.4 });
  const chosen = (rows) => (isAlong ? rows.filter((row) => cell(sweep, "seed", row) === view.seed) : rows);
  const one = (row) => ({ row, points: curveOf(sweep, row, view.what) });
  const found = groups.flatMap((rows, i) => (BANDS[view.seed] ? [meanCurve(sweep, rows, view)] : chosen(rows).map(one)).map((curve) => ({ ...curve, ...place(i) })));
  const curves = found.filter((curve) => curve.points);
  const every = Math.ceil(curves.length / (BANDS[view.seed] ? MAX_BANDS : MAX_CURVES));
  return curves.filter((_, i) => i % every === 0).map((curve) => smoothed(curve, view.smooth));
}

// The mean over the seeds of a point at the steps that all of them recorded, and a band around it.
function meanCurve(sweep, rows, view) {
  const curves = rows.map((row) => curveOf(sweep, row, view.what)).filter(Boolean);
  const at = new Map();
  for (const [step, value] of curves.flat()) at.set(step, [...(at.get(step) ?? []), value]);
  const steps = [...at].filter(([, values]) => values.length === curves.length).sort(([a], [b]) => a - b);
  const spread = (values) => (view.seed === "range" ? [smallest(values), largest(values)] : meanInterval(values, sweep.t95));
  return { row: rows[0], rows, points: steps.length ? steps.map(([step, values]) => [step, meanOf(values)]) : null, band: steps.map(([step, values]) => [step, ...spread(values)]) };
}

const meanOf = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// The 95 % interval of a mean by Student's t; the mean itself for one value.
function meanInterval(values, quantiles) {
  const [n, mean] = [values.length, meanOf(values)];
  if (n < 2) return [mean, mean];
  const half = quantiles[n - 2] * Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1) / n);
  return [mean - half, mean + half];
}

// A curve and its band as moving means of `count` recorded points; numbers that are not finite stay.
function smoothed(curve, count) {
  if (!(count > 1)) return curve;
  const mean = (rows, i, column) => {
    if (!Number.isFinite(rows[i][column])) return rows[i][column];
    const reach = Math.min((count - 1) / 2, i, rows.length - 1 - i);
    return meanOf(rows.slice(i - reach, i + reach + 1).map((row) => row[column]).filter(Number.isFinite));
  };
  const each = (rows) => rows?.map((row, i) => row.map((value, column) => (column ? mean(rows, i, column) : value)));
  return { ...curve, points: each(curve.points), band: each(curve.band) };
}

const curveTitle = ({ what, seed, smooth }) => `${titleOf(what)}${BANDS[seed] ? ", mean over seeds" : ""}${smooth > 1 ? ` (moving mean of ${smooth} points)` : ""}`;

function curveScales(sweep, curves, view, box) {
  const stayed = curves.filter((curve) => regimeOf(sweep, curve.row) !== DIVERGED);
  const first = curves.flatMap((curve) => [curve.points[0][1], 100 * curve.points[0][1]]);
  const losses = stayed.length ? stayed.flatMap((curve) => curve.points.map((point) => point[1])) : first;
  const last = Math.max(1, largest(curves.map((curve) => curve.points.at(-1)[0])));
  const x = scaleOf(view.log && last > 10 ? "symlog" : "linear", 0, last, box.left, box.right, 1);
  if (last <= 10) x.marks = Array.from({ length: last + 1 }, (_, step) => step);
  return [x, lossScale(losses, box.bottom, box.top, view.linear ?? false, null)];
}

// Pixels of a curve, up to its first value that is not finite, or to where it leaves the picture for good.
function pathOf(figure, points) {
  const { box } = figure;
  const finite = points.findIndex(([, loss]) => !Number.isFinite(loss));
  const path = (finite < 0 ? points : points.slice(0, finite)).map((point) => placeOf(figure, ...point));
  let last = path.length - 1;
  while (last > 0 && path[last][1] < box.top) last--;
  if (path[last]?.[1] < box.top) return figure.view.window ? [] : [[path[0][0], box.top]];
  if (last + 1 < path.length) {
    const [[a, b], [c]] = [path[last], path[last + 1]];
    const d = figure.y.of(points[last + 1][1]); // its true height: one step may be many decades
    path.length = last + 1;
    path.push([a + ((c - a) * (b - box.top)) / (b - d), box.top]);
  }
  return path;
}

// Clamps numbers below the whole scale to its bottom, and numbers far above it to one height above the picture.
function placeOf({ x, y, box, view }, step, loss) {
  const height = box.bottom - box.top;
  const low = view.window?.y ? box.bottom + height : box.bottom;
  return [x.of(step), y.kind === "log" && loss <= 0 ? low : Math.max(Math.min(y.of(loss), low), box.top - height)];
}

function drawCurve(sweep, figure, curve, drawn, ends) {
  const path = pathOf(figure, curve.points);
  if (!path.length) return;
  const shade = Math.round(curve.shade * 15);
  const code = mostCommonRegime(sweep, curve.rows ?? [curve.row]);
  if (curve.band) drawn.append(svg("path", { class: `spread q${shade}`, d: bandPath(figure, curve.band) }));
  drawn.append(svg("path", { class: `curve q${shade}`, d: polyline(path) }));
  const [a, b] = [path.at(-1)[0], Math.max(path.at(-1)[1], figure.box.top)];
  if (inBox(figure.box, a, b)) ends.append(svg("path", { class: `mark r${code}`, d: markPath(sweep.regimes[code].marker, a, b, 4) }));
  path.forEach(([px, py]) => inBox(figure.box, px, py) && figure.points.push({ row: curve.row, rows: curve.rows ?? [curve.row], x: px, y: py, value: curve.value }));
}

function bandPath(figure, band) {
  const finite = band.findIndex((row) => !row.every(Number.isFinite));
  const rows = finite < 0 ? band : band.slice(0, finite);
  const side = (column) => rows.map((row) => placeOf(figure, row[0], row[column]));
  return rows.length ? `${polyline([...side(2), ...side(1).reverse()])}Z` : "";
}

// Highlights the run that is pointed at (place 0), or a pinned run in its color and with its number.
function overlayCurve(app, figure, row, place) {
  const points = curveOf(app.sweep, row, figure.view.what);
  if (!points) return;
  drawStableSharpness(app, figure, row);
  const path = pathOf(figure, smoothed({ points }, figure.view.smooth).points).map(([a, b]) => [a, Math.max(b, figure.box.top)]);
  if (!path.length) return;
  const own = place ? `pinned ${pinLook(place - 1)}` : "ink";
  for (const kind of ["curve halo", `curve over ${own}`]) figure.inner.append(svg("path", { class: kind, d: polyline(path) }));
  const [a, b] = path.at(-1);
  if (place && inBox(figure.box, a, b)) figure.overlay.append(number({ x: Math.min(a - 4, figure.box.right - 18), y: Math.max(b, figure.box.top + 14) }, place));
}

const pinLook = (place) => `c${place % 7} l${place > 6 ? 1 : 0}`;

// The largest sharpness that is stable at this run's learning rate.
function drawStableSharpness(app, figure, row) {
  const { sweep } = app;
  const { theory } = sweep.optimizers[optimizerOf(sweep, row)];
  if (figure.view.what !== "sharpness" || theory === null || !sweep.columns.has("learning_rate")) return;
  const at = figure.y.of(theory / cell(sweep, "learning_rate", row));
  if (!inBox(figure.box, figure.box.left, at)) return;
  figure.overlay.append(svg("line", { class: "theory ink", x1: figure.box.left, x2: figure.box.right, y1: at, y2: at }));
}

