// Pointing at a run: by mouse, by touch, or by keys. What is said of it, and what is pinned.

function mount(app, figure, picture, title) {
  const help = "Arrow keys move from run to run, Enter pins one, Escape leaves.";
  const attributes = { tabindex: "0", role: "application", "aria-label": `${title}. ${help}` };
  for (const [name, value] of Object.entries(attributes)) picture.setAttribute(name, value);
  const old = figure.holder.querySelector("svg.picture");
  const focused = old !== null && document.activeElement === old;
  if (old) old.replaceWith(picture);
  else figure.holder.append(picture);
  if (focused) picture.focus({ preventScroll: true });
  figure.picture = picture;
  if (figure.current) app.hover(figure, null); // its place was in the former picture

  const hit = (event) => {
    const frame = picture.getBoundingClientRect();
    const ratio = picture.viewBox.baseVal.width / frame.width;
    return figure.nearest((event.clientX - frame.left) * ratio, (event.clientY - frame.top) * ratio);
  };
  picture.addEventListener("pointermove", (event) => app.hover(figure, hit(event)));
  picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && app.hover(figure, null));
  picture.addEventListener("click", (event) => {
    const [point, now] = [hit(event), figure.current]; // a click knows whole pixels only: of two marks, the one that was shown
    const chosen = point && now && Math.hypot(point.x - now.x, point.y - now.y) < 2 ? now : point;
    if (chosen) app.pin(chosen.row);
  });
  picture.addEventListener("keydown", (event) => walk(app, figure, event));
  picture.addEventListener("blur", () => app.hover(figure, null));
}

// Moves along the figure's points: left and right to the next place, up and down to the next at the same place.
function walk(app, figure, event) {
  if (event.key === "Escape") return app.hover(figure, null);
  if (event.key === "Enter" && figure.current) return app.pin(figure.current.row);
  const side = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!side) return undefined;
  event.preventDefault();
  const next = figure.current ? beside(figure.points, figure.current, side) : figure.points[0];
  return next ? app.hover(figure, next) : undefined;
}

// The nearest point in a direction; distance aside counts thrice.
function beside(points, from, [dx, dy]) {
  let found = null;
  let least = Infinity;
  for (const point of points) {
    const [a, b] = [point.x - from.x, point.y - from.y];
    const ahead = a * dx + b * dy;
    const aside = Math.abs(dx ? b : a);
    if (ahead <= 0.01 || ahead + 3 * aside >= least) continue;
    [found, least] = [point, ahead + 3 * aside];
  }
  return found;
}

// What a run is: its optimizer, its place on every axis, its seed.
function nameOf(sweep, row) {
  const optimizer = sweep.optimizers[optimizerOf(sweep, row)];
  const axes = optimizer.dimensions.flat().map((name) => `${wordsFor(name)} ${short(cell(sweep, name, row))}`);
  const seed = sweep.several ? [`seed ${cell(sweep, "seed", row)}`] : [];
  return [optimizer.label, ...axes, ...seed].filter(Boolean).join(", ");
}

function endOf(sweep, row) {
  return `step ${cell(sweep, "end_step", row).toLocaleString("en")}: ${sweep.ends[cell(sweep, "end_kind", row)]}`;
}

// The numbers that are told of a run: what it is compared by first.
function factsOf(sweep, row, measure) {
  const names = [...new Set([measure, sweep.by, "final_loss", ...(sweep.measures.test ?? []), ...(sweep.measures.stability ?? [])])];
  const facts = names.filter((name) => sweep.columns.has(name)).slice(0, 7);
  return [...facts.map((name) => [wordsFor(name), shown(name, cell(sweep, name, row))]), ["ended at", endOf(sweep, row)]];
}

// How the runs of one place fared, where they fared differently; one alone is shown there.
function mixtureOf(sweep, rows) {
  const found = regimeCounts(sweep, rows).map((count, code) => [count, code]).filter(([count]) => count);
  return found.length > 1 ? `of ${rows.length} runs here: ${found.map(([count, code]) => `${count} ${sweep.regimes[code].name}`).join(", ")}` : "";
}

function cardOf(app, row, measure, rows) {
  const { sweep } = app;
  const regime = sweep.regimes[regimeOf(sweep, row)];
  const facts = factsOf(sweep, row, measure).flatMap(([name, value]) => [html("dt", {}, [name]), html("dd", {}, [value])]);
  const mixture = mixtureOf(sweep, rows);
  return [
    html("strong", {}, [nameOf(sweep, row)]),
    html("p", {}, [regimeBadge(sweep, regimeOf(sweep, row)), `${regime.name}: ${regime.meaning}`]),
    ...(mixture ? [html("p", { class: "soft" }, [mixture])] : []),
    html("dl", {}, facts),
    ...(sparkline(sweep, row) ?? []),
  ];
}

// The run's loss curve, small.
function sparkline(sweep, row) {
  const points = curveOf(sweep, row)?.filter(([, loss]) => Number.isFinite(loss));
  if (!points || points.length < 2) return null;
  const x = scaleOf("symlog", 0, points.at(-1)[0], 2, 218, 1);
  const y = lossScale(points.map((point) => point[1]), 44, 4, false);
  const path = polyline(points.map(([step, loss]) => [x.of(step), Math.min(y.of(Math.max(loss, y.low)), 44)]));
  return [svg("svg", { class: "spark", viewBox: "0 0 220 48", "aria-hidden": "true" }, [svg("path", { class: "curve ink", d: path })])];
}

// Shows the card of a point beside it, inside the window, and says it to those who listen.
function showCard(app, figure, point) {
  const { card, said } = app;
  card.hidden = point === null;
  if (point === null) return;
  card.replaceChildren(...cardOf(app, point.row, figure.view.measure ?? app.sweep.by, point.rows ?? [point.row]));
  placeCard(card, figure, point);
  const facts = factsOf(app.sweep, point.row, figure.view.measure ?? app.sweep.by);
  const told = [...facts.map((fact) => fact.join(" ")), mixtureOf(app.sweep, point.rows ?? [])].filter(Boolean);
  said.textContent = `${nameOf(app.sweep, point.row)}: ${told.join("; ")}`;
}

// Beside the point, inside the window; nowhere while the point is out of sight.
function placeCard(card, figure, point) {
  card.hidden = false;
  const frame = figure.picture.getBoundingClientRect();
  const ratio = frame.width / figure.picture.viewBox.baseVal.width;
  const [x, y] = [frame.left + point.x * ratio, frame.top + point.y * ratio];
  const size = card.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = x + 18 + size.width < width ? x + 18 : x - 18 - size.width;
  card.style.left = `${Math.max(8, Math.min(left, width - size.width - 8))}px`;
  const narrow = left < 8;
  const below = narrow ? y + 24 : y - size.height / 2;
  card.style.top = `${Math.max(8, Math.min(below, window.innerHeight - size.height - 8))}px`;
  card.hidden = y < 0 || y > window.innerHeight;
}

// The pinned runs, each with a button that lets it go.
function listPinned(app) {
  const { sweep, state } = app;
  const chips = state.pinned.map((row, i) =>
    html("li", {}, [
      html("b", {}, [String(i + 1)]),
      regimeBadge(sweep, regimeOf(sweep, row)),
      ` ${nameOf(sweep, row)}: ${wordsFor(sweep.by)} ${shown(sweep.by, cell(sweep, sweep.by, row))} `,
      html("button", { type: "button", "aria-label": `Let go of run ${i + 1}`, onclick: () => app.pin(row) }, ["×"]),
    ]),
  );
  app.pins.replaceChildren(...chips);
  app.pins.hidden = !chips.length;
}
