// Two axes: regimes, or a measure, as cells (as points where the axes go together), with the edge as a line.

function mapFigure(app, holder, view) {
  const { sweep } = app;
  const figure = { holder, view, points: [] };

  figure.draw = () => {
    const { width, height, picture } = canvas(holder);
    const box = { left: 62, right: width - 12, top: 24, bottom: height - 48 };
    const optimizer = sweep.optimizers[view.optimizer];
    const cells = groupCells(sweep, rowsAlong(sweep, optimizer, [view.x, view.y], app.state.at), view);
    const paired = optimizer.dimensions.some((names) => names.includes(view.x) && names.includes(view.y));
    const xs = valuesOf(sweep, view.x, cells.flatMap((c) => c.rows[0]));
    const ys = valuesOf(sweep, view.y, cells.flatMap((c) => c.rows[0]));
    const x = axisScale(sweep, view.x, xs, box.left, box.right, true);
    const y = axisScale(sweep, view.y, ys, box.bottom, box.top, true);
    const classes = classesOf(sweep, cells, view);
    Object.assign(figure, { box, x, y, points: cells.map((c, i) => ({ row: c.rows[0], rows: c.rows, x: x.of(c.x), y: y.of(c.y), kind: classes[i] })) });
    drawAxes(picture, box, x, y, wordsFor(view.x), wordsFor(view.y));
    if (paired) drawDots(sweep, figure, picture);
    else drawCells(sweep, figure, picture, xs, ys);
    figure.overlay = svg("g", { class: "overlay" });
    picture.append(figure.overlay);
    mount(app, figure, picture, `map over ${wordsFor(view.x)} and ${wordsFor(view.y)}`);
    figure.mark();
  };

  figure.mark = () => {
    figure.overlay.replaceChildren();
    for (const point of figure.points) {
      const now = point.rows.includes(app.state.hovered);
      const kept = point.rows.find((row) => app.state.pinned.includes(row));
      if (!now && kept === undefined) continue;
      figure.overlay.append(svg("circle", { class: `ring ${now ? "now" : ""}`, cx: point.x, cy: point.y, r: 7 }));
      if (kept !== undefined) figure.overlay.append(number(point, app.state.pinned.indexOf(kept) + 1));
    }
  };

  figure.nearest = (px, py) => nearestOf(figure.points, px, py, 90);
  return figure;
}

// Rows by their place on the two axes.
function groupCells(sweep, rows, view) {
  const groups = new Map();
  for (const row of rows) {
    const [a, b] = [cell(sweep, view.x, row), cell(sweep, view.y, row)];
    const key = `${a} ${b}`;
    if (!groups.has(key)) groups.set(key, { x: a, y: b, rows: [] });
    groups.get(key).rows.push(row);
  }
  return [...groups.values()];
}

// The class that colours each cell: its commonest regime, or the shade of its mean.
function classesOf(sweep, cells, view) {
  if (view.fill === "regime") return cells.map((c) => `r${commonest(sweep, c.rows)}`);
  const means = cells.map((c) => c.rows.reduce((sum, row) => sum + score(sweep, view.fill, row), 0) / c.rows.length);
  const finite = means.filter(Number.isFinite);
  const scale = lossScale(finite, 0, 15, view.fill.includes("accuracy"));
  view.range = finite.length ? [smallest(finite), largest(finite)] : null;
  return means.map((mean) => (Number.isFinite(mean) ? `q${Math.round(Math.min(15, Math.max(0, scale.of(Math.max(mean, scale.low)))))}` : "none"));
}

function drawDots(sweep, figure, picture) {
  for (const point of figure.points) {
    const marker = figure.view.fill === "regime" ? sweep.regimes[Number(point.kind.slice(1))].marker : "o";
    picture.append(svg("path", { class: `mark ${point.kind}`, d: markPath(marker, point.x, point.y, 5) }));
  }
}

function drawCells(sweep, figure, picture, xs, ys) {
  const [across, up] = [borders(xs.map(figure.x.of)), borders(ys.map(figure.y.of))];
  const [column, line] = [new Map(xs.map((v, i) => [figure.x.of(v), i])), new Map(ys.map((v, i) => [figure.y.of(v), i]))];
  const paths = new Map();
  const lost = new Map();
  for (const point of figure.points) {
    const [i, j] = [column.get(point.x), line.get(point.y)];
    const outline = `M${across[i].toFixed(1)} ${up[j].toFixed(1)}H${across[i + 1].toFixed(1)}V${up[j + 1].toFixed(1)}H${across[i].toFixed(1)}Z`;
    paths.set(point.kind, (paths.get(point.kind) ?? "") + outline);
    lost.set(`${i} ${j}`, commonest(sweep, point.rows) === DIVERGED);
  }
  for (const [kind, path] of paths) picture.append(svg("path", { class: `cell ${kind}`, d: path, "shape-rendering": "crispEdges" }));
  if (figure.view.fill === "regime") drawSigns(sweep, figure, picture, column, line);
  const edge = edgePath(lost, across, up);
  for (const kind of edge ? ["border wide", "border"] : []) picture.append(svg("path", { class: kind, d: edge }));
}

// Marks on a wide lattice of the cells tell the regime to who does not tell the colours.
function drawSigns(sweep, figure, picture, column, line) {
  const [every, other] = [Math.ceil(column.size / 14), Math.ceil(line.size / 10)];
  const paths = { light: "", dark: "" };
  for (const point of figure.points) {
    if (column.get(point.x) % every !== every >> 1 || line.get(point.y) % other !== other >> 1) continue;
    const code = Number(point.kind.slice(1));
    paths[[1, 2, 3, 6].includes(code) ? "light" : "dark"] += markPath(sweep.regimes[code].marker, point.x, point.y, 2.6);
  }
  for (const [kind, path] of Object.entries(paths)) picture.append(svg("path", { class: `sign ${kind}`, d: path }));
}

// The sides that a cell that diverged shares with one that did not.
function edgePath(lost, across, up) {
  let path = "";
  for (const [key, gone] of lost) {
    const [i, j] = key.split(" ").map(Number);
    const right = lost.get(`${i + 1} ${j}`);
    const above = lost.get(`${i} ${j + 1}`);
    if (right !== undefined && right !== gone) path += `M${across[i + 1]} ${up[j]}V${up[j + 1]}`;
    if (above !== undefined && above !== gone) path += `M${across[i]} ${up[j + 1]}H${across[i + 1]}`;
  }
  return path;
}
