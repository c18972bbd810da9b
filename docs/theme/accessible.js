// What the theme leaves out for keys and screen readers: what scrolls can have the focus, and menus have names of their own.
addEventListener("load", () => {
  const names = new Map();
  for (const nav of document.querySelectorAll("nav")) {
    const title = nav.querySelector(":scope > .md-nav__title");
    const name = nav.getAttribute("aria-label") ?? (title ? title.textContent.trim() : "Code");
    names.set(name, (names.get(name) ?? 0) + 1);
    nav.removeAttribute("aria-labelledby");
    nav.setAttribute("aria-label", names.get(name) > 1 ? `${name} (${names.get(name)})` : name);
  }
  const focusable = (element) => { if (element.tabIndex < 0) element.tabIndex = 0; };
  const observer = new MutationObserver((changes) => changes.forEach((change) => focusable(change.target)));
  for (const element of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    focusable(element);
    observer.observe(element, { attributeFilter: ["tabindex"] }); // the theme removes it where there is no mouse
  }
});
