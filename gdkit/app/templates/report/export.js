// Charts as files: what is shown, with the colors of the page.

const COPIED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "paint-order"];

function exportButtons(app, figure, name) {
  const save = (end, make) => async () => {
    const [type, content] = await make(figure.picture);
    download(`${app.sweep.name}-${name}.${end}`, type, content);
  };
  const button = (end, make) => html("button", { type: "button", class: "export", onclick: save(end, make) }, [`Save ${end.toUpperCase()}`]);
  return [button("svg", (picture) => ["image/svg+xml", svgText(picture)]), button("png", pngBlob)];
}

// The picture as a file of its own: styles of the page become attributes.
function svgText(picture) {
  const copy = picture.cloneNode(true);
  const [, , width, height] = picture.getAttribute("viewBox").split(" ");
  const originals = picture.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    for (const property of COPIED) element.setAttribute(property, style.getPropertyValue(property));
    element.removeAttribute("class");
  });
  for (const name of ["class", "tabindex", "role"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.prepend(svg("rect", { width, height, fill: getComputedStyle(picture).backgroundColor }));
  return new XMLSerializer().serializeToString(copy);
}

// The same in pixels, two for each of the page.
async function pngBlob(picture) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(picture))}`;
  await image.decode();
  const canvas = html("canvas", { width: String(2 * image.width), height: String(2 * image.height) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return ["image/png", await new Promise((done) => { canvas.toBlob(done, "image/png"); })];
}
