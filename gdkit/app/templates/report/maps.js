// A map over two axes: regimes or a measure as cells (as points if the axes vary together), with the edge as a line.
// A third axis has one panel per value.

const MAX_PANELS = 9;

function mapFigure(app, holder, view) {
  const { sweep } = app;
  const figure = { holder, view, radius: 90, points: [] };

  figure.draw = () => {
    const values = panelsOf(sweep, view);
    const columns = Math.min(values.length, holder.clientWidth < 560 ? 1 : values.length === 4 ? 2 : 3);
    const wide = Math.max(260, Math.floor(holder.clientWidth)) / columns;
    const tall = values.length > 1 ? Math.round(Math.min(320, Math.max(230, wide * 0.8))) : null;
    const { width, height, picture } = canvas(holder, tall && tall * Math.ceil(values.length / columns));
    const panels = panelsWith(app, view, values);
    colorPanels(sweep, panels, view);
    figure.points = panels.flatMap((panel, i) => {
      const [left, top] = [(i % columns) * (width / columns), Math.floor(i / columns) * (tall ?? 0)];
      const own = svg("g", { transform: `translate(${left} ${top})` });
      drawPanel(sweep, view, panel, own, { left: 62, right: width / columns - 12, top: panel.title ? 40 : 24, bottom: (tall ?? height) - 48 });
      picture.append(own);
      return panel.points.map((point) => ({ ...point, x: point.x + left, y: point.y + top }));
    });
    mount(app, figure, picture, `map over ${humanize(view.x)} and ${humanize(view.y)}${view.z ? `, one panel per ${humanize(view.z)}` : ""}`);
  };

  figure.mark = () => drawRings(app, figure, 7);
  return figure;
}

// The values with a panel, at equal distances if there are many; one panel without a third axis.
function panelsOf(sweep, view) {
  const optimizer = sweep.optimizers[view.optimizer];
  const values = view.z ? valuesOf(sweep, view.z, rowsAlong(sweep, optimizer, optimizer.dimensions.flat(), {})) : [null];
  const last = Math.min(values.length, MAX_PANELS) - 1;
  return Array.from({ length: last + 1 }, (_, i) => values[last ? Math.round((i * (values.length - 1)) / last) : 0]);
}

function panelsWith(app, view, values) {
  const { sweep, state } = app;
  const optimizer = sweep.optimizers[view.optimizer];
  return values.map((value) => {
    const at = value === null ? state.at : { ...state.at, [view.z]: value };
    const title = value === null ? "" : `${humanize(view.z)} ${short(value)}`;
    const cells = groupCells(sweep, rowsAlong(sweep, optimizer, [view.x, view.y], at), [view.x, view.y]);
    return { title, cells };
  });
}

// Assigns colors that mean the same in all panels.
function colorPanels(sweep, panels, view) {
  const kinds = classesOf(sweep, panels.flatMap((panel) => panel.cells), view);
  let next = 0;
  for (const panel of panels) for (const one of panel.cells) one.kind = kinds[next++];
}

function drawPanel(sweep, view, panel, picture, box) {
  const { cells } = panel;
  const paired = sweep.optimizers[view.optimizer].dimensions.some((names) => names.includes(view.x) && names.includes(view.y));
  const rows = cells.map((one) => one.rows[0]);
  const [xs, ys] = [valuesOf(sweep, view.x, rows), valuesOf(sweep, view.y, rows)];
  panel.x = axisScale(sweep, view.x, xs, box.left, box.right, true);
  panel.y = axisScale(sweep, view.y, ys, box.bottom, box.top, true);
  Object.assign(panel, { fill: view.fill, box });
  panel.points = cells.map(({ rows: own, at: [x, y], kind }) => ({ row: own[0], rows: own, x: panel.x.of(x), y: panel.y.of(y), kind }));
  drawAxes(picture, box, panel.x, panel.y, humanize(view.x), humanize(view.y), panel.title);
  if (!cells.length) return;
  if (paired) drawDots(sweep, panel, picture);
  else drawCells(sweep, panel, picture, xs, ys);
  markBest(sweep, view, panel, picture);
}

// Rows grouped by their values on the axes.
function groupCells(sweep, rows, names) {
  const groups = new Map();
  for (const row of rows) {
    const at = names.map((name) => cell(sweep, name, row));
    const key = at.join(" ");
    if (!groups.has(key)) groups.set(key, { at, rows: [] });
    groups.get(key).rows.push(row);
  }
  return [...groups.values()];
}

// The median over the seeds of a point that did not diverge; null where most of them diverged, as in the map of regimes.
function valueAt(sweep, name, rows) {
  if (mostCommonRegime(sweep, rows) === DIVERGED) return null;
  const known = rows.map((row) => score(sweep, name, row)).filter(Number.isFinite);
  return known.length ? median(known) : null;
}

// The CSS class that colors each cell: its most common regime, or the shade of its value.
function classesOf(sweep, cells, view) {
  if (view.fill === "regime") return cells.map((c) => `r${mostCommonRegime(sweep, c.rows)}`);
  const values = cells.map((c) => valueAt(sweep, view.fill, c.rows));
  const shade = shadesOf(sweep, view.fill, values);
  view.range = shade.ends;
  return values.map((value) => (value === null ? "none" : `q${shade(value)}`));
}

// A function from a value to one of sixteen shades, robust to outliers; `ends` are the ends of the scale, null without values.
function shadesOf(sweep, name, values) {
  const finite = values.filter((value) => value !== null);
  const scale = lossScale(finite, 0, 15, isMaximized(sweep, name), isMaximized(sweep, name));
  const shade = (value) => Math.round(Math.min(15, Math.max(0, scale.of(Math.max(value, scale.low)))));
  return Object.assign(shade, { ends: finite.length ? [Math.max(smallest(finite), scale.low), Math.min(largest(finite), scale.high)] : null });
}

function drawDots(sweep, panel, picture) {
  for (const point of panel.points) {
    const marker = panel.fill === "regime" ? sweep.regimes[Number(point.kind.slice(1))].marker : "o";
    picture.append(svg("path", { class: `mark ${point.kind}`, d: markPath(marker, point.x, point.y, 5) }));
  }
}

function drawCells(sweep, panel, picture, xs, ys) {
  const { left, right, top, bottom } = panel.box; // cells of values at uneven distances would extend beyond
  const across = borders(xs.map(panel.x.of)).map((at) => Math.min(Math.max(at, left), right));
  const up = borders(ys.map(panel.y.of)).map((at) => Math.min(Math.max(at, top), bottom));
  const [column, line] = [new Map(xs.map((v, i) => [panel.x.of(v), i])), new Map(ys.map((v, i) => [panel.y.of(v), i]))];
  const paths = new Map();
  const diverged = new Map();
  for (const point of panel.points) {
    const [i, j] = [column.get(point.x), line.get(point.y)];
    const outline = `M${across[i].toFixed(1)} ${up[j].toFixed(1)}H${across[i + 1].toFixed(1)}V${up[j + 1].toFixed(1)}H${across[i].toFixed(1)}Z`;
    paths.set(point.kind, (paths.get(point.kind) ?? "") + outline);
    diverged.set(`${i} ${j}`, mostCommonRegime(sweep, point.rows) === DIVERGED);
  }
  for (const [kind, path] of paths) picture.append(svg("path", { class: `cell ${kind}`, d: path, "shape-rendering": "crispEdges" }));
  if (panel.fill === "regime") drawSigns(sweep, panel, picture, column, line);
  const edge = edgePath(diverged, across, up);
  for (const kind of edge ? ["border wide", "border"] : []) picture.append(svg("path", { class: kind, d: edge }));
}

// Draws a star on the best point if it lies in the panel.
function markBest(sweep, view, panel, picture) {
  const { best, score: found } = sweep.optimizers[view.optimizer];
  const point = found === null ? null : panel.points.find((one) => one.rows.includes(best));
  if (point) picture.append(svg("path", { class: "star ink", d: markPath("*", point.x, point.y, 7) }));
}

// Draws marks on a coarse grid of the cells, which show regimes to readers who cannot distinguish the colors.
function drawSigns(sweep, panel, picture, column, line) {
  const [every, other] = [Math.ceil(column.size / 14), Math.ceil(line.size / 10)];
  const paths = { light: "", dark: "" };
  for (const point of panel.points) {
    if (column.get(point.x) % every !== every >> 1 || line.get(point.y) % other !== other >> 1) continue;
    const code = Number(point.kind.slice(1));
    paths[[1, 2, 3, 6].includes(code) ? "light" : "dark"] += markPath(sweep.regimes[code].marker, point.x, point.y, 2.6);
  }
  for (const [kind, path] of Object.entries(paths)) picture.append(svg("path", { class: `sign ${kind}`, d: path }));
}

// The sides between cells that diverged and cells that did not.
function edgePath(diverged, across, up) {
  let path = "";
  for (const [key, here] of diverged) {
    const [i, j] = key.split(" ").map(Number);
    const right = diverged.get(`${i + 1} ${j}`);
    const above = diverged.get(`${i} ${j + 1}`);
    if (right !== undefined && right !== here) path += `M${across[i + 1]} ${up[j]}V${up[j + 1]}`;
    if (above !== undefined && above !== here) path += `M${across[i]} ${up[j + 1]}H${across[i + 1]}`;
  }
  return path;
}
