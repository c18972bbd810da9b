// Parallel coordinates: one upright axis per hyperparameter and one for the measure, one line per point, colored by the
// measure. `view.window` holds the ranges that were selected on axes; other lines are grey.

const MAX_LINES = 2500;

function parallelFigure(app, holder, view) {
  const { sweep } = app;
  const figure = { holder, view, radius: 14, points: [], select: true };
  let points = [];

  figure.draw = () => {
    const optimizer = sweep.optimizers[view.optimizer];
    const names = optimizer.dimensions.flat();
    const rows = Array.from({ length: optimizer.count }, (_, i) => optimizer.start + i);
    const groups = groupCells(sweep, rows, names);
    const every = Math.ceil(groups.length / MAX_LINES);
    points = groups.filter((one, i) => i % every === 0 || one.rows.includes(optimizer.best));
    points = points.map((one) => ({ ...one, value: valueAt(sweep, view.fill, one.rows), isBest: one.rows.includes(optimizer.best) }));
    figure.names = [...names, view.fill];
    figure.paint();
  };

  figure.paint = () => {
    const { width, height, picture } = canvas(holder, Math.min(420, Math.max(320, holder.clientWidth * 0.4)));
    const box = { left: 62, right: width - 46, top: 34, bottom: height - 14 };
    const axes = uprightAxes(sweep, figure, points, box);
    const shade = shadesOf(sweep, view.fill, points.map((point) => point.value));
    const shown = points.filter((point) => axes.every((axis) => isSelected(axis, point)));
    Object.assign(figure, { box, axes, points: [] });
    const selected = new Set(shown);
    drawLines(picture, points.filter((point) => !selected.has(point)), axes, () => "faint");
    drawLines(picture, [...shown].sort((a, b) => badness(sweep, view, b) - badness(sweep, view, a)), axes, (point) => (point.value === null ? "none" : `q${shade(point.value)}`));
    for (const point of shown.filter((one) => one.isBest)) picture.append(...bestLine(axes, point));
    axes.forEach((axis, i) => drawUpright(picture, axis, box, i === axes.length - 1));
    figure.points = shown.flatMap((point) => placesOf(axes, point));
    mount(app, figure, picture, `parallel coordinates of ${points.length} points`);
  };

  figure.mark = () => {
    figure.overlay.replaceChildren();
    for (const point of points) {
      const pinned = pinnedPlace(app, point);
      if (pinned < 0 && !point.rows.includes(app.state.hovered)) continue;
      const path = polyline(figure.axes.map((axis) => [axis.x, axis.of(point)]));
      for (const kind of ["halo", `over ${pinned < 0 ? "ink" : pinLook(pinned)}`]) figure.overlay.append(svg("path", { class: `curve ${kind}`, d: path }));
    }
  };

  return figure;
}

// The axes from left to right, with their positions and the function that places a point on each.
function uprightAxes(sweep, { names, view }, points, box) {
  return names.map((name, i) => {
    const x = box.left + (i * (box.right - box.left)) / (names.length - 1);
    const isMeasure = i === names.length - 1;
    const at = (point) => (isMeasure ? point.value : point.at[i]);
    const known = points.map(at).filter((value) => value !== null);
    const linear = isMaximized(sweep, name) || known.some((value) => value < 0);
    const scale = isMeasure ? lossScale(known, box.bottom, box.top + 12, linear, isMaximized(sweep, name)) : axisScale(sweep, name, distinct(known), box.bottom, box.top + 12);
    const place = (value) => (value === null ? box.top : Math.min(Math.max(scale.of(value), box.top), box.bottom)); // a diverged run is above all others
    return { name, x, scale, range: view.window?.[name], of: (point) => place(at(point)), value: at };
  });
}

// Whether a point is within the range that was selected on an axis, in pixels of the scale's own numbers.
function isSelected({ range, scale, of }, point) {
  if (!range) return true;
  const [a, b] = range.map((end) => scale.numbers.of(end));
  return of(point) >= Math.min(a, b) - 0.5 && of(point) <= Math.max(a, b) + 0.5;
}

const badness = (sweep, { fill }, { value }) => (value === null ? Infinity : isMaximized(sweep, fill) ? -value : value);

function drawLines(picture, points, axes, kindOf) {
  const paths = new Map();
  for (const point of points) {
    const kind = kindOf(point);
    paths.set(kind, (paths.get(kind) ?? "") + polyline(axes.map((axis) => [axis.x, axis.of(point)])));
  }
  for (const [kind, d] of paths) picture.append(svg("path", { class: `curve thread ${kind}`, d }));
}

function bestLine(axes, point) {
  const d = polyline(axes.map((axis) => [axis.x, axis.of(point)]));
  const last = axes.at(-1);
  return [svg("path", { class: "curve halo", d }), svg("path", { class: "curve over ink", d }), svg("path", { class: "star ink", d: markPath("*", last.x, last.of(point), 6) })];
}

function drawUpright(picture, { name, x, scale, range }, box, isLast) {
  const group = svg("g", { class: "ticks" }, [svg("line", { class: "upright", x1: x, x2: x, y1: box.top, y2: box.bottom })]);
  for (const [value, text] of scale.empty ? [] : ticksOf(scale, 22)) {
    const label = { x: isLast ? x + 5 : x - 5, y: scale.of(value) + 4, "text-anchor": isLast ? "start" : "end" };
    group.append(svg("text", { ...label, class: "halo" }, [text.length > 9 ? `${text.slice(0, 8)}…` : text]));
  }
  const side = isLast ? "end" : x === box.left ? "start" : "middle";
  group.append(svg("text", { class: "title", x: side === "start" ? 2 : isLast ? x + 44 : x, y: 14, "text-anchor": side }, [humanize(name)]));
  if (range) {
    const [a, b] = range.map((end) => scale.numbers.of(end)).sort((p, q) => p - q);
    group.append(svg("rect", { class: "selection", x: x - 5, width: 10, y: a, height: b - a }));
  }
  picture.append(group);
}

// Places on the line of a point that a pointer can hit: on the axes and between them.
function placesOf(axes, point) {
  const between = (a, b) => [0, 0.25, 0.5, 0.75].map((t) => [a.x + t * (b.x - a.x), a.of(point) + t * (b.of(point) - a.of(point))]);
  const places = [...axes.slice(1).flatMap((axis, i) => between(axes[i], axis)), [axes.at(-1).x, axes.at(-1).of(point)]];
  return places.map(([x, y]) => ({ row: point.rows[0], rows: point.rows, x, y }));
}

// A drag along an axis selects a range of it; a click beside all lines or a double click selects all again.
function addSelecting(app, figure, at) {
  const { picture, view } = figure;
  let start = null;
  const between = (from, to) => {
    const { scale, name } = start.axis;
    const ends = [from, to].map((y) => Math.min(Math.max(y, figure.box.top), figure.box.bottom));
    const range = ends.map((y) => Number(scale.numbers.at(y).toPrecision(6)));
    showWindow(app, figure, { ...view.window, [name]: range });
  };
  picture.addEventListener("pointerdown", (event) => {
    const [x, y] = at(event);
    const axis = figure.axes.find((one) => Math.abs(one.x - x) < 14);
    start = axis && event.pointerType === "mouse" && !event.button ? { axis, y, id: event.pointerId } : null;
    figure.dragged = false;
  });
  picture.addEventListener("pointermove", (event) => {
    const [, y] = at(event);
    if (!start || !event.buttons || Math.abs(y - start.y) < DRAG) return;
    if (!figure.dragged) picture.setPointerCapture(start.id);
    figure.dragged = true;
    between(start.y, y);
  });
  picture.addEventListener("pointerup", () => { start = null; });
  picture.addEventListener("dblclick", () => view.window && showWindow(app, figure, null));
}
