// The table of runs: the best first, sorted by any column, filtered by outcome, optimizer and range; only the rows in view
// are in the document. Downloads hold the rows that the filters leave, in the order of the runs.

const BEYOND = 12; // rows drawn above and below those in view

function runsTable(app, holder) {
  const { sweep } = app;
  const view = { sort: sweep.by, down: isMaximized(sweep, sweep.by), regime: "", optimizer: "", column: sweep.by, from: "", to: "" };
  const columns = tableColumns(sweep);
  const body = html("tbody");
  const heads = columns.map((column) => headOf(column, () => sortBy(column.name, view.sort === column.name && !view.down)));
  const head = html("thead", {}, [html("tr", {}, [...heads, html("th", { scope: "col" }, ["pin"])])]);
  const count = html("p", { class: "soft", role: "status" });
  const table = html("table", { class: "runs" }, [head, body]);
  const wide = html("div", { class: "wide tall", tabindex: "0", role: "region", "aria-label": "Table of runs" }, [table]);
  const spacers = [0, 1].map(() => html("tr", { class: "spacer", "aria-hidden": "true" }, [html("td", { colspan: String(columns.length + 1) })]));
  let rows = [];
  let height = 0; // of a row, in pixels

  const numeric = columns.filter((column) => !column.text).map((column) => column.name);
  const bound = (name, label) => html("label", { class: "chooser" }, [html("span", {}, [label]), html("input", { type: "text", inputmode: "decimal", size: "7", oninput: (event) => filter(name, event.target.value) })]);
  const choices = [
    chooser("Outcome", ["", ...sweep.regimes.map((r, i) => (countOf(sweep, i) ? r.name : null)).filter(Boolean)], "all", (v) => filter("regime", v)),
    ...(sweep.optimizers.length > 1 ? [chooser("Optimizer", ["", ...sweep.optimizers.map((o) => o.label)], "all", (v) => filter("optimizer", v))] : []),
    chooser("Filter by", numeric, "", (v) => filter("column", v), view.column, humanize),
    bound("from", "from"),
    bound("to", "to"),
  ];
  holder.append(html("div", { class: "controls" }, [...choices, ...downloadButtons(app, () => filteredRows(sweep, view))]), wide, count);
  wide.addEventListener("scroll", paint, { passive: true });

  function filter(name, value) {
    view[name] = value;
    fill();
  }
  function sortBy(name, down) {
    Object.assign(view, { sort: name, down });
    fill();
  }
  function fill() {
    rows = sortedRows(sweep, filteredRows(sweep, view), view);
    columns.forEach((column, i) => heads[i].setAttribute("aria-sort", view.sort === column.name ? (view.down ? "descending" : "ascending") : "none"));
    table.setAttribute("aria-rowcount", String(rows.length + 1));
    const all = sweep.rows.toLocaleString("en");
    count.textContent = rows.length === sweep.rows ? `${all} ${sweep.rows === 1 ? "run" : "runs"}` : `${rows.length.toLocaleString("en")} of ${all} runs`;
    wide.scrollTop = 0;
    paint();
  }
  function paint() {
    const first = height ? Math.max(0, Math.floor(wide.scrollTop / height) - BEYOND) : 0;
    const last = Math.min(rows.length, first + (height ? Math.ceil(wide.clientHeight / height) : 20) + 2 * BEYOND);
    const shown = rows.slice(first, last).map((row, i) => rowOf(app, columns, row, first + i + 2));
    body.replaceChildren(spacers[0], ...shown, spacers[1]);
    height ||= shown[0]?.getBoundingClientRect().height ?? 0;
    spacers[0].firstChild.style.height = `${first * height}px`;
    spacers[1].firstChild.style.height = `${(rows.length - last) * height}px`;
    spacers.forEach((spacer, i) => { spacer.hidden = i ? last === rows.length : first === 0; });
  }
  fill();
  return { mark: paint, sortBy, view };
}

const countOf = (sweep, code) => sweep.columns.get("regime").values.reduce((n, c) => n + (c === code), 0);

function tableColumns(sweep) {
  const axes = Object.keys(sweep.axes);
  const measured = [...new Set([sweep.by, ...(sweep.measures.test ?? []), "final_loss", ...(sweep.measures.stability ?? [])])];
  const names = ["lane", ...(sweep.columns.has("optimizer") ? ["optimizer"] : []), ...axes, "seed", "regime", "end_kind", ...measured];
  return names.filter((name) => sweep.columns.has(name)).map((name) => ({ name, title: humanize(name), text: name === "end_kind" || Boolean(sweep.columns.get(name).texts) }));
}

function headOf(column, sort) {
  const button = html("button", { type: "button", title: describe(column.name), onclick: sort }, [column.title]);
  return html("th", { scope: "col", "aria-sort": "none", ...(column.text ? { class: "text" } : {}) }, [button]);
}

// The rows that the filters leave, in the order of the runs.
function filteredRows(sweep, view) {
  const [regime, optimizer] = [sweep.regimes.findIndex((r) => r.name === view.regime), sweep.optimizers.find((o) => o.label === view.optimizer)];
  const bounds = [view.from, view.to].map((text) => (String(text).trim() === "" ? NaN : Number(text)));
  const { values } = sweep.columns.get(view.column);
  const rows = [];
  for (let row = optimizer?.start ?? 0; row < (optimizer ? optimizer.start + optimizer.count : sweep.rows); row++) {
    if (regime >= 0 && regimeOf(sweep, row) !== regime) continue;
    if (values[row] < bounds[0] || values[row] > bounds[1]) continue;
    if (Number.isNaN(values[row]) && !bounds.every(Number.isNaN)) continue;
    rows.push(row);
  }
  return rows;
}

function sortedRows(sweep, rows, { sort, down }) {
  const { values, texts } = sweep.columns.get(sort);
  const of = sort === sweep.by ? (row) => score(sweep, sort, row) : texts ? (row) => texts[values[row]] : (row) => values[row];
  const keys = new Map(rows.map((row) => [row, of(row)]));
  const sign = down ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    return (x !== x || y !== y ? (x !== x) - (y !== y) : sign * compare(x, y)) || a - b; // NaN is last in both orders
  });
}

const compare = (a, b) => (a < b ? -1 : Number(a > b));

function rowOf(app, columns, row, index) {
  const { sweep } = app;
  const pinned = app.state.pinned.includes(row);
  const label = `${pinned ? "Unpin" : "Pin"} run ${cell(sweep, "lane", row)}`;
  const press = () => {
    app.pin(row); // rebuilds the table, this button included
    document.querySelector(`.runs [data-row="${row}"]`)?.focus();
  };
  const state = { "aria-pressed": String(pinned), "aria-label": label, "data-row": String(row) };
  const button = html("button", { type: "button", ...state, onclick: press }, [pinned ? "×" : "+"]);
  return html("tr", { "aria-rowindex": String(index), ...(pinned ? { class: "pinned" } : {}) }, [...columns.map((column) => cellOf(sweep, column.name, row)), html("td", {}, [button])]);
}

function cellOf(sweep, name, row) {
  if (name === "regime") {
    const code = regimeOf(sweep, row);
    return html("td", { class: "text" }, [regimeBadge(sweep, code), sweep.regimes[code].name]);
  }
  const value = cell(sweep, name, row);
  if (name === "end_kind") return html("td", { class: "text" }, [endOf(sweep, row)]);
  return html("td", typeof value === "string" ? { class: "text" } : {}, [formatValue(name, value)]);
}

// ---- Downloads, made from the embedded numbers ----

function downloadButtons(app, rows) {
  const save = (end, type, make) => () => download(`${app.sweep.name}.${end}`, type, make(app.sweep, rows()));
  return [
    html("button", { type: "button", class: "save", onclick: save("csv", "text/csv", asCsv) }, ["Download CSV"]),
    html("button", { type: "button", class: "save", onclick: save("json", "application/json", asJson) }, ["Download JSON"]),
  ];
}

function download(name, type, text) {
  const address = URL.createObjectURL(text instanceof Blob ? text : new Blob([text], { type: `${type};charset=utf-8` }));
  const link = html("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function asCsv(sweep, rows) {
  const columns = [...sweep.columns.values()];
  const lines = [columns.map((column) => quoted(titleOf(column.name))).join(",")];
  for (const row of rows) lines.push(columns.map((column) => csvCell(sweep, column, row)).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function csvCell(sweep, column, row) {
  const value = column.values[row];
  if (column.name === "end_kind") return sweep.ends[value];
  if (column.texts) return quoted(column.texts[value]);
  if (Number.isNaN(value)) return "";
  return Number.isFinite(value) ? exact(value, column.type) : value > 0 ? "inf" : "-inf";
}

// JSON has no numbers that are not finite: NaN becomes null, infinities become "inf" and "-inf".
function jsonNumber(value, type) {
  if (Number.isNaN(value)) return null;
  return Number.isFinite(value) ? Number(exact(value, type)) : value > 0 ? "inf" : "-inf";
}

function asJson(sweep, rows) {
  const columns = [...sweep.columns.values()];
  const value = (column, row) => (column.texts ? column.texts[column.values[row]] : jsonNumber(column.values[row], column.type));
  const lanes = rows.map((row) => {
    const lane = Object.fromEntries(columns.map((column) => [column.name, value(column, row)]));
    const curve = curveOf(sweep, row);
    return curve ? { ...lane, curve: curve.map(([step, loss]) => [step, jsonNumber(loss, "f4")]) } : lane;
  });
  return JSON.stringify({ name: sweep.name, labels, lanes });
}
