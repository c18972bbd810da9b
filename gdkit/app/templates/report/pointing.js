// Pointing at a run by mouse, touch or keys: its card, and pinned runs.

const NARROW = 640; // pixels, as in the style

function mount(app, figure, picture, title) {
  const canZoom = figure.paint && !figure.select ? "Plus and minus zoom, Shift and arrow keys pan, 0 shows all." : "";
  picture.setAttribute("aria-label", `${title}. Arrow keys move between runs, Enter pins a run, Escape closes its card. ${canZoom}`);
  figure.overlay = svg("g", { class: "overlay" });
  picture.append(figure.overlay);
  if (figure.picture) { // keep the element, so that a gesture that redraws it continues
    for (const name of ["viewBox", "aria-label"]) figure.picture.setAttribute(name, picture.getAttribute(name));
    figure.picture.replaceChildren(...picture.childNodes);
  } else {
    figure.picture = picture;
    for (const [name, value] of Object.entries({ tabindex: "0", role: "application" })) picture.setAttribute(name, value);
    figure.holder.append(picture);
    listen(app, figure);
  }
  figure.picture.classList.toggle("zoomed", Boolean(figure.view.window) && !figure.select);
  if (figure.reset) figure.reset.hidden = !figure.view.window;
  figure.mark();
  if (figure.current) app.hover(figure, null); // its position was in the old picture
}

function listen(app, figure) {
  const { picture } = figure;
  const at = (event) => {
    const frame = picture.getBoundingClientRect();
    const ratio = picture.viewBox.baseVal.width / frame.width;
    return [(event.clientX - frame.left) * ratio, (event.clientY - frame.top) * ratio];
  };
  const hit = (event) => nearestOf(figure.points, ...at(event), figure.radius);
  let touch = false; // whether the last press was by a finger: the first press shows the card, the second pins the run
  picture.addEventListener("pointerdown", (event) => { touch = event.pointerType === "touch"; });
  picture.addEventListener("pointermove", (event) => { if (!event.buttons) app.hover(figure, hit(event)); });
  picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && app.hover(figure, null));
  if (figure.paint) (figure.select ? addSelecting : addGestures)(app, figure, at);
  picture.addEventListener("click", (event) => {
    if (figure.dragged) return;
    const [point, now] = [hit(event), figure.current]; // a click has integer pixels: of two close marks, take the one whose card is shown
    const isShown = point && now && Math.hypot(point.x - now.x, point.y - now.y) < 2;
    if (touch && !isShown) app.hover(figure, point);
    else if (point) app.pin((isShown ? now : point).row);
  });
  picture.addEventListener("keydown", (event) => (figure.paint && !figure.select && zoomByKey(app, figure, event)) || moveByKey(app, figure, event));
  picture.addEventListener("blur", () => app.hover(figure, null));
}

// Moves to the nearest point in the direction of an arrow key.
function moveByKey(app, figure, event) {
  if (event.key === "Escape") return app.hover(figure, null);
  if (event.key === "Enter" && figure.current) return app.pin(figure.current.row);
  const side = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!side) return undefined;
  event.preventDefault();
  const next = figure.current ? nextPoint(figure.points, figure.current, side) : figure.points[0];
  return next ? app.hover(figure, next) : undefined;
}

// The nearest point in a direction; perpendicular distance counts three times.
function nextPoint(points, from, [dx, dy]) {
  let nearest = null;
  let least = Infinity;
  for (const point of points) {
    const [a, b] = [point.x - from.x, point.y - from.y];
    const ahead = a * dx + b * dy;
    const aside = Math.abs(dx ? b : a);
    if (ahead <= 0.01 || ahead + 3 * aside >= least) continue;
    [nearest, least] = [point, ahead + 3 * aside];
  }
  return nearest;
}

// The name of a run: its optimizer, its values on all axes, its seed.
function nameOf(sweep, row) {
  const optimizer = sweep.optimizers[optimizerOf(sweep, row)];
  const axes = optimizer.dimensions.flat().map((name) => `${humanize(name)} ${short(cell(sweep, name, row))}`);
  const seed = sweep.several ? [`seed ${cell(sweep, "seed", row)}`] : [];
  return [optimizer.label, ...axes, ...seed].filter(Boolean).join(", ");
}

function endOf(sweep, row) {
  const [kind, step] = [cell(sweep, "end_kind", row), cell(sweep, "end_step", row).toLocaleString("en")];
  return kind === COMPLETED ? `completed ${step} ${step === "1" ? "step" : "steps"}` : `${sweep.ends[kind]} at step ${step}`;
}

// Names and values shown for a run, the measure of the figure first.
function factsOf(sweep, row, measure) {
  const names = [...new Set([measure, sweep.by, "final_loss", ...(sweep.measures.test ?? []), ...(sweep.measures.stability ?? [])])];
  const facts = names.filter((name) => sweep.columns.has(name)).slice(0, 7);
  return [...facts.map((name) => [humanize(name), formatValue(name, cell(sweep, name, row))]), ["end", endOf(sweep, row)]];
}

// Regimes of the runs at one point, if they differ; the card shows only one of these runs.
function regimesAt(sweep, rows) {
  const present = regimeCounts(sweep, rows).map((count, code) => [count, code]).filter(([count]) => count);
  return present.length > 1 ? `${rows.length} runs here: ${present.map(([count, code]) => `${count} ${sweep.regimes[code].name}`).join(", ")}` : "";
}

function cardOf(app, row, measure, rows) {
  const { sweep } = app;
  const regime = sweep.regimes[regimeOf(sweep, row)];
  const facts = factsOf(sweep, row, measure).flatMap(([name, value]) => [html("dt", {}, [name]), html("dd", {}, [value])]);
  const regimes = regimesAt(sweep, rows);
  return [
    html("strong", {}, [nameOf(sweep, row)]),
    html("p", {}, [regimeBadge(sweep, regimeOf(sweep, row)), `${regime.name}: ${regime.meaning}`]),
    ...(regimes ? [html("p", { class: "soft" }, [regimes])] : []),
    html("dl", {}, facts),
    ...(sparkline(sweep, row) ?? []),
  ];
}

// A small picture of the run's loss curve.
function sparkline(sweep, row) {
  const points = curveOf(sweep, row)?.filter(([, loss]) => Number.isFinite(loss));
  if (!points || points.length < 2) return null;
  const x = scaleOf("symlog", 0, points.at(-1)[0], 2, 218, 1);
  const y = lossScale(points.map((point) => point[1]), 44, 4, false);
  const path = polyline(points.map(([step, loss]) => [x.of(step), Math.min(y.of(Math.max(loss, y.low)), 44)]));
  return [svg("svg", { class: "spark", viewBox: "0 0 220 48", "aria-hidden": "true" }, [svg("path", { class: "curve ink", d: path })])];
}

// Shows the card of a point beside it, and announces it to screen readers.
function showCard(app, figure, point) {
  const { card, announcement } = app;
  card.hidden = point === null;
  if (point === null) return;
  card.replaceChildren(...cardOf(app, point.row, figure.view.measure ?? app.sweep.by, point.rows));
  placeCard(card, figure, point);
  const facts = factsOf(app.sweep, point.row, figure.view.measure ?? app.sweep.by);
  const texts = [...facts.map((fact) => fact.join(" ")), regimesAt(app.sweep, point.rows)].filter(Boolean);
  announcement.textContent = `${nameOf(app.sweep, point.row)}: ${texts.join("; ")}`;
}

// Places the card beside the point, within its own figure, so that it covers no other one; hides it while the point is
// out of view. On a narrow screen it is below the picture instead.
function placeCard(card, figure, point) {
  card.hidden = false;
  const isNarrow = document.documentElement.clientWidth < NARROW;
  const home = isNarrow ? figure.holder : document.querySelector("main");
  if (card.parentElement !== home) home.append(card);
  if (isNarrow) return;
  const frame = figure.picture.getBoundingClientRect();
  const ratio = frame.width / figure.picture.viewBox.baseVal.width;
  const [x, y] = [frame.left + point.x * ratio, frame.top + point.y * ratio];
  const size = card.getBoundingClientRect();
  const sides = [x + 18, x - 18 - size.width].filter((left) => left >= frame.left && left + size.width <= frame.right);
  const left = sides[0] ?? Math.max(frame.left, Math.min(x - size.width / 2, frame.right - size.width));
  const top = sides.length ? y - size.height / 2 : y + 24 + size.height <= frame.bottom ? y + 24 : y - 24 - size.height;
  const within = (low, high) => Math.max(low, Math.min(top, high - size.height));
  card.style.left = `${left}px`;
  card.style.top = `${Math.max(8, Math.min(within(frame.top, frame.bottom), window.innerHeight - size.height - 8))}px`;
  card.hidden = y < 0 || y > window.innerHeight;
}

// The pinned runs, each with a button to unpin it.
function listPinned(app) {
  const { sweep, state } = app;
  const chips = state.pinned.map((row, i) =>
    html("li", {}, [
      html("b", {}, [String(i + 1)]),
      seriesBadge({ look: pinLook(i) }),
      regimeBadge(sweep, regimeOf(sweep, row)),
      ` ${nameOf(sweep, row)}: ${humanize(sweep.by)} ${formatValue(sweep.by, cell(sweep, sweep.by, row))} `,
      html("button", { type: "button", "aria-label": `Unpin run ${i + 1}`, onclick: () => app.pin(row) }, ["×"]),
    ]),
  );
  app.pins.replaceChildren(...chips);
  app.pins.hidden = !chips.length;
}
