// Saves charts as files, as they are shown and with the colors of the page.

const COPIED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "paint-order"];

function exportButtons(app, figure, name) {
  const save = (end, make) => async () => {
    const [type, content] = await make(figure);
    download(`${app.sweep.name}-${name}.${end}`, type, content);
  };
  const button = (end, make) => html("button", { type: "button", class: "export", onclick: save(end, make) }, [`Save ${end.toUpperCase()}`]);
  return [button("svg", (one) => ["image/svg+xml", svgText(one)]), button("png", pngBlob)];
}

// The picture and its legend as a file of its own.
function svgText({ picture, holder }) {
  const copy = plainCopy(picture);
  const [, , width, height] = picture.getAttribute("viewBox").split(" ").map(Number);
  const [legend, below] = legendRows(holder.closest("figure"), width, height);
  for (const name of ["class", "tabindex", "role", "aria-label"]) copy.removeAttribute(name);
  const size = { xmlns: SVG, width, height: below, viewBox: `0 0 ${width} ${below}` };
  for (const [name, value] of Object.entries(size)) copy.setAttribute(name, value);
  copy.prepend(svg("rect", { width, height: below, fill: getComputedStyle(picture).backgroundColor }));
  copy.append(...legend);
  return new XMLSerializer().serializeToString(copy);
}

// A copy in which styles of the page are attributes.
function plainCopy(original) {
  const copy = original.cloneNode(true);
  const originals = [original, ...original.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    for (const property of COPIED) element.setAttribute(property, style.getPropertyValue(property));
    element.removeAttribute("class");
  });
  return copy;
}

// The entries of the legend that are shown beside a chart, in rows below it, and the height of both.
function legendRows(figure, width, height) {
  const rows = [];
  let [x, y] = [10, height + 18];
  for (const entry of figure.querySelectorAll('.chip[aria-pressed="true"], .key li')) {
    const room = entry.getBoundingClientRect().width + 14;
    if (x > 10 && x + room > width) [x, y] = [10, y + 20];
    const color = getComputedStyle(document.body).color;
    let at = x;
    for (const part of entry.childNodes) {
      if (part.nodeType === Node.TEXT_NODE) {
        rows.push(svg("text", { x: at, y, fill: color, "font-family": "sans-serif", "font-size": "12" }, [part.textContent]));
        at += part.textContent.length * 6.5;
        continue;
      }
      const badge = plainCopy(part);
      const box = part.getBoundingClientRect();
      for (const [name, value] of Object.entries({ x: at, y: y - 4 - box.height / 2, width: box.width, height: box.height })) badge.setAttribute(name, value);
      rows.push(badge);
      at += box.width + 4;
    }
    x += room;
  }
  return [rows, rows.length ? y + 12 : height];
}

// The picture and its legend in pixels, at twice the resolution of the page.
async function pngBlob(figure) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(figure))}`;
  await image.decode();
  const canvas = html("canvas", { width: String(2 * image.width), height: String(2 * image.height) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return ["image/png", await new Promise((done) => { canvas.toBlob(done, "image/png"); })];
}
