// The table of runs: sorted by any column, filtered by regime and optimizer, in pages; and its download as files.

const PAGE = 25;

function runsTable(app, holder) {
  const { sweep } = app;
  const view = { sort: null, down: false, regime: "", optimizer: "", first: 0 };
  const columns = tableColumns(sweep);
  const body = html("tbody");
  const heads = columns.map((column) => headOf(column, () => sortBy(column.name)));
  const head = html("thead", {}, [html("tr", {}, [...heads, html("th", { scope: "col" }, ["pin"])])]);
  const count = html("span", { class: "soft", role: "status" });
  const move = (by, text) => html("button", { type: "button", onclick: () => turn(by) }, [text]);
  const [back, next] = [move(-PAGE, "← previous"), move(PAGE, "next →")];

  const choices = [
    chooser("Outcome", ["", ...sweep.regimes.map((r, i) => (countOf(sweep, i) ? r.name : null)).filter(Boolean)], "all", (v) => filter("regime", v)),
    ...(sweep.optimizers.length > 1 ? [chooser("Optimizer", ["", ...sweep.optimizers.map((o) => o.label)], "all", (v) => filter("optimizer", v))] : []),
  ];
  const wide = html("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of runs" }, [html("table", { class: "runs" }, [head, body])]);
  holder.append(
    html("div", { class: "controls" }, [...choices, ...downloadButtons(app)]),
    wide,
    html("div", { class: "controls" }, [back, next, count]),
  );

  function filter(name, value) {
    Object.assign(view, { [name]: value, first: 0 });
    fill();
  }
  function sortBy(name) {
    Object.assign(view, { down: view.sort === name && !view.down, sort: name, first: 0 });
    fill();
  }
  function turn(by) {
    view.first = Math.max(0, view.first + by);
    fill();
  }
  function fill() {
    const rows = chosenRows(sweep, view);
    body.replaceChildren(...rows.slice(view.first, view.first + PAGE).map((row) => rowOf(app, columns, row)));
    columns.forEach((column, i) => heads[i].setAttribute("aria-sort", view.sort === column.name ? (view.down ? "descending" : "ascending") : "none"));
    const last = Math.min(view.first + PAGE, rows.length);
    count.textContent = rows.length ? `${(view.first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs` : "no runs match";
    back.disabled = view.first === 0;
    next.disabled = last >= rows.length;
  }
  fill();
  return { mark: fill };
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

function chosenRows(sweep, view) {
  const rows = [];
  for (let row = 0; row < sweep.rows; row++) {
    if (view.regime && sweep.regimes[regimeOf(sweep, row)].name !== view.regime) continue;
    if (view.optimizer && sweep.optimizers[optimizerOf(sweep, row)].label !== view.optimizer) continue;
    rows.push(row);
  }
  if (view.sort === null) return rows;
  const values = new Map(rows.map((row) => [row, cell(sweep, view.sort, row)]));
  rows.sort((a, b) => compare(values.get(a), values.get(b)) || a - b);
  return view.down ? rows.reverse() : rows;
}

// Numbers in order, NaN last; texts in alphabetical order.
function compare(a, b) {
  if (typeof a === "string") return a < b ? -1 : Number(a > b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a < b ? -1 : Number(a > b);
}

function rowOf(app, columns, row) {
  const { sweep } = app;
  const pinned = app.state.pinned.includes(row);
  const label = `${pinned ? "Unpin" : "Pin"} run ${cell(sweep, "lane", row)}`;
  const press = () => {
    app.pin(row); // rebuilds the table, this button included
    document.querySelector(`.runs [data-row="${row}"]`)?.focus();
  };
  const state = { "aria-pressed": String(pinned), "aria-label": label, "data-row": String(row) };
  const button = html("button", { type: "button", ...state, onclick: press }, [pinned ? "×" : "+"]);
  return html("tr", pinned ? { class: "pinned" } : {}, [...columns.map((column) => cellOf(sweep, column.name, row)), html("td", {}, [button])]);
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

function downloadButtons(app) {
  const save = (end, type, make) => () => download(`${app.sweep.name}.${end}`, type, make(app.sweep));
  return [
    html("button", { type: "button", class: "save", onclick: save("csv", "text/csv", asCsv) }, ["Download CSV"]),
    html("button", { type: "button", class: "save", onclick: save("json", "application/json", asJson) }, ["Download JSON"]),
  ];
}

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = html("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function asCsv(sweep) {
  const columns = [...sweep.columns.values()];
  const lines = [columns.map((column) => quoted(titleOf(column.name))).join(",")];
  for (let row = 0; row < sweep.rows; row++) lines.push(columns.map((column) => csvCell(sweep, column, row)).join(","));
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

function asJson(sweep) {
  const columns = [...sweep.columns.values()];
  const value = (column, row) => (column.texts ? column.texts[column.values[row]] : jsonNumber(column.values[row], column.type));
  const lanes = Array.from({ length: sweep.rows }, (_, row) => {
    const lane = Object.fromEntries(columns.map((column) => [column.name, value(column, row)]));
    const curve = curveOf(sweep, row);
    return curve ? { ...lane, curve: curve.map(([step, loss]) => [step, jsonNumber(loss, "f4")]) } : lane;
  });
  return JSON.stringify({ name: sweep.name, labels, lanes });
}
