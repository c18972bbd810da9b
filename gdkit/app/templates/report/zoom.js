// Zoom and pan of a chart. `view.window` holds the range of each axis that is shown, as values; without it all is shown.

const ZOOM = 1.5; // factor of a key or a button
const DRAG = 6; // pixels, below which a press is a click
const DEEPEST = 1e4; // largest factor

// The scales x and y of a figure, restricted to its window.
function windowed(figure, x, y) {
  const { window: range } = figure.view;
  const isRange = (scale, ends) => ends?.every((end) => Number.isFinite(scale.numbers.of(end))); // not 0 on a log scale
  const within = (scale, ends) => (isRange(scale, ends) ? { ...scale.zoom(ends), marks: scale.marks } : scale);
  return { whole: { x, y }, x: within(x, range?.x), y: within(y, range?.y) };
}

// The drawing area, to which its content is clipped.
function clipped(picture, name, box) {
  const frame = { x: box.left - 3, y: box.top, width: box.right - box.left + 6, height: box.bottom - box.top };
  picture.append(svg("clipPath", { id: `clip-${name}` }, [svg("rect", frame)]));
  const group = svg("g", { "clip-path": `url(#clip-${name})` });
  picture.append(group);
  return group;
}

const inBox = ({ left, right, top, bottom }, x, y) => x >= left - 1 && x <= right + 1 && y >= top - 1 && y <= bottom + 1;

// The range of an axis between these pixels of its present scale, limited to the whole range; null for all of it.
function rangeBetween(whole, now, first, last) {
  const ends = [first, last].map((pixel) => whole.numbers.of(now.numbers.at(pixel)));
  const [low, high] = [Math.min(whole.from, whole.to), Math.max(whole.from, whole.to)];
  const size = Math.max(Math.abs(ends[1] - ends[0]), (high - low) / DEEPEST);
  if (!(size < (high - low) * 0.999)) return null;
  const start = Math.min(Math.max(Math.min(...ends), low), high - size);
  const [a, b] = whole.from < whole.to ? [start, start + size] : [start + size, start];
  return [a, b].map((pixel) => Number(whole.numbers.at(pixel).toPrecision(7)));
}

// Shows what lies between these pixels: [left, right], [bottom, top]; null leaves an axis as it is.
function zoomTo(app, figure, across, up) {
  const { view, whole, x, y } = figure;
  const range = (axis, scale, ends) => (ends ? rangeBetween(whole[axis], scale, ...ends) : (view.window?.[axis] ?? null));
  const next = { x: range("x", x, across), y: range("y", y, up) };
  showWindow(app, figure, next.x || next.y ? next : null);
}

function showWindow(app, figure, next) {
  figure.view.window = next;
  if (figure.current) app.hover(figure, null);
  figure.paint();
}

// Zooms by a factor about a point; beside the axes only the nearer one.
function zoomBy(app, figure, factor, [px, py]) {
  const { box, x, y } = figure;
  const about = (scale, at) => [at + (scale.from - at) / factor, at + (scale.to - at) / factor];
  zoomTo(app, figure, px < box.left ? null : about(x, px), py > box.bottom ? null : about(y, py));
}

function panBy(app, figure, dx, dy) {
  const { x, y } = figure;
  zoomTo(app, figure, [x.from - dx, x.to - dx], [y.from - dy, y.to - dy]);
}

const middleOf = ({ box }) => [(box.left + box.right) / 2, (box.top + box.bottom) / 2];

// Wheel, drag and pinch. `at` gives the place of an event in the picture.
function addGestures(app, figure, at) {
  const { picture, view } = figure;
  const pressed = new Map(); // places of the pointers that are down, by their numbers
  let start = null; // of a drag

  picture.addEventListener("wheel", (event) => {
    const factor = Math.exp(Math.min(Math.max(-event.deltaY * (event.deltaMode ? 20 : 1) * 0.003, -1), 1));
    const meant = event.ctrlKey || event.metaKey || document.activeElement === picture; // otherwise the page scrolls
    if (!meant || (factor < 1 && !view.window)) return;
    event.preventDefault();
    zoomBy(app, figure, factor, at(event));
  }, { passive: false });
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pressed.set(event.pointerId, at(event));
    if (pressed.size === 1) start = { at: at(event), touch: event.pointerType === "touch", moved: false, boxed: !view.window || event.shiftKey };
    else start.moved = true;
  });
  picture.addEventListener("pointermove", (event) => {
    if (!pressed.has(event.pointerId)) return;
    const [[a, b], now] = [pressed.get(event.pointerId), at(event)];
    const others = [...pressed].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    if (others.length || start.moved || Math.hypot(now[0] - start.at[0], now[1] - start.at[1]) > DRAG) {
      if (!start.moved) picture.setPointerCapture(event.pointerId);
      start.moved = true;
      if (others.length) pinch(app, figure, others[0], [a, b], now);
      else if (view.window && !start.boxed) panBy(app, figure, now[0] - a, now[1] - b);
      else if (!start.touch) drawSelection(figure, start.at, now);
      pressed.set(event.pointerId, now);
    }
  });
  const end = (event) => {
    if (!pressed.delete(event.pointerId) || pressed.size) return;
    figure.dragged = start.moved;
    const selected = figure.overlay.querySelector(".selection");
    if (!selected) return;
    selected.remove();
    if (event.type === "pointerup") zoomTo(app, figure, ...sidesOf(figure, start.at, at(event)));
  };
  for (const kind of ["pointerup", "pointercancel"]) picture.addEventListener(kind, end);
  picture.addEventListener("dblclick", () => view.window && showWindow(app, figure, null));
}

// Zooms while one finger moves and the other is still, so that the values beneath both stay beneath them.
function pinch(app, figure, still, before, now) {
  const spread = (place) => Math.hypot(place[0] - still[0], place[1] - still[1]);
  const factor = Math.max(spread(now), 1) / Math.max(spread(before), 1);
  const ends = (scale, i) => [scale.from, scale.to].map((end) => (still[i] + before[i]) / 2 + (end - (still[i] + now[i]) / 2) / factor);
  zoomTo(app, figure, ends(figure.x, 0), ends(figure.y, 1));
}

// The sides of a selection in pixels; null for a side as short as a click, which selects nothing.
const sidesOf = ({ box }, [a, b], [c, d]) => [
  Math.abs(c - a) > DRAG ? [Math.max(Math.min(a, c), box.left), Math.min(Math.max(a, c), box.right)] : null,
  Math.abs(d - b) > DRAG ? [Math.min(Math.max(b, d), box.bottom), Math.max(Math.min(b, d), box.top)] : null,
];

function drawSelection(figure, from, to) {
  const { box, overlay } = figure;
  const [[left, right], [bottom, top]] = sidesOf(figure, from, to).map((side, i) => side ?? (i ? [box.bottom, box.top] : [box.left, box.right]));
  overlay.querySelector(".selection")?.remove();
  overlay.append(svg("rect", { class: "selection", x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) }));
}

// Zooms or pans by a key; returns whether the key does either.
function zoomByKey(app, figure, event) {
  const about = figure.current ? [figure.current.x, figure.current.y] : middleOf(figure);
  const step = 60;
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  const move = event.shiftKey && moves[event.key];
  if (move) panBy(app, figure, ...move);
  else if (event.key === "+" || event.key === "=") zoomBy(app, figure, ZOOM, about);
  else if (event.key === "-") zoomBy(app, figure, 1 / ZOOM, about);
  else if (event.key === "0") showWindow(app, figure, null);
  else return false;
  event.preventDefault();
  announceWindow(app, figure);
  return true;
}

function announceWindow(app, { x, y, select }) {
  if (select) return;
  const describeRange = (name, { texts, low, high }) => (texts ? "" : `${name} ${short(low)} to ${short(high)}`);
  app.announcement.textContent = [describeRange("horizontal", x), describeRange("vertical", y)].filter(Boolean).join("; ");
}

// Buttons for readers who cannot use gestures or do not know of them.
function zoomButtons(app, figure) {
  const press = (text, label, act) => html("button", { type: "button", "aria-label": label, onclick: () => { act(); announceWindow(app, figure); } }, [text]);
  figure.reset = press("Show all", "Show all of the chart", () => showWindow(app, figure, null));
  if (figure.select) return figure.reset;
  const zoom = (factor) => () => zoomBy(app, figure, factor, middleOf(figure));
  return html("span", { class: "zoom", role: "group", "aria-label": "Zoom" }, [press("+", "Zoom in", zoom(ZOOM)), press("−", "Zoom out", zoom(1 / ZOOM)), figure.reset]);
}
