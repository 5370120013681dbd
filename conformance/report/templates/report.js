"use strict";
// Filters, and a panel a case. Nothing from the report ever becomes markup: text nodes only.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const form = byId("filters"), panel = byId("panel");
  const rows = [...byId("list").tBodies[0].rows].map((row) => {
    const id = row.cells[0].textContent;
    const text = `${id} ${row.cells[1].textContent} ${row.dataset.deviations}`.toLowerCase();
    const [tokens, deviations] = [row.dataset.tokens, row.dataset.deviations].map((each) => each.split(" "));
    return { row, id, text, stage: row.dataset.stage, tokens, deviations };
  });
  const byImpact = [...rows], place = new Map(Object.keys(data.cases).map((id, index) => [id, index]));

  // --- filters ---

  function fits(item, wanted) {
    const says = wanted.clause ? data.cases[item.id].says[wanted.clause] : item.tokens;
    return Boolean(says)
      && (!wanted.token || says.includes(wanted.token)
        || (wanted.token.endsWith("=accepted") && item.tokens.includes(wanted.token)))
      && (!wanted.impact || item.tokens.includes(wanted.impact))
      && (!wanted.deviation || item.deviations.includes(wanted.deviation))
      && (!wanted.stage || item.stage === wanted.stage)
      && wanted.text.toLowerCase().split(/\s+/).every((word) => item.text.includes(word));
  }

  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    order(wanted.order);
    let shown = 0;
    for (const item of rows) {
      item.row.hidden = !fits(item, wanted);
      shown += !item.row.hidden;
    }
    byId("shown").textContent = `${shown} of ${rows.length} cases`;
    const clause = data.clauses[wanted.clause];
    byId("statement").hidden = !clause;
    byId("statement").replaceChildren(...(clause ? statement(wanted.clause) : []));
  }

  /** The rows by impact, as the page has them, or stage by stage. */
  let ordered = "impact";
  function order(name) {
    if (name === ordered) return;
    ordered = name;
    rows.splice(0, rows.length, ...byImpact);
    if (name === "stage") rows.sort((a, b) => place.get(a.id) - place.get(b.id));
    byId("list").tBodies[0].append(...rows.map((item) => item.row));
  }

  function find({ token = "", clause = "", deviation = "", unexpected = "" }) {
    const kept = form.elements.order.value;
    form.reset();
    form.elements.order.value = kept;
    if (unexpected) token = `${unexpected.split("=")[0]}=diverge`;
    const isImpact = Object.hasOwn(data.impacts, token.split("=")[1] || "");
    form.elements.impact.value = isImpact ? token : unexpected;
    if (isImpact) token = "";
    form.elements.token.value = token;
    form.elements.clause.value = clause;
    form.elements.deviation.value = deviation;
    // Of one clause a case may say what no case as a whole is; the list of verdicts then lacks it.
    if (form.elements.token.value !== token) {
      const [column, word] = token.split("=");
      const name = `${data.symbols[word] || ""} ${word}`;
      const group = [...form.elements.token.querySelectorAll("optgroup")]
        .find((each) => each.label === data.columns[column]);
      group.append(h("option", { value: token }, name));
      form.elements.token.value = token;
    }
    filter();
    byId("cases").scrollIntoView();
    byId("cases").focus({ preventScroll: true });
  }

  // --- the panel ---

  function h(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  }

  const quiet = (text) => h("span", { class: "quiet" }, text);

  function statement(id) {
    const [level, title, words, source] = data.clauses[id] || ["", "a clause that no longer exists", "", ""];
    return [h("strong", {}, `${id} ${title} `), quiet(level), h("br"), ...rich(words), " ",
      h("span", { class: "quiet" }, "Source: ", ...rich(source))];
  }

  /** The text with its `code`, and what is an address of the web as a link. */
  function rich(text) {
    return text.split(/(https:\/\/[^\s<>"')]*[^\s<>"').,;]|`[^`]+`)/).map((part, index) => {
      if (index % 2 === 0) return part;
      return part.startsWith("`") ? h("code", {}, part.slice(1, -1))
        : h("a", { href: part, rel: "noreferrer noopener" }, part);
    });
  }

  function sign(word) {
    return h("span", { class: `sign ${word}` },
      h("span", { "aria-hidden": "true" }, data.symbols[word] || ""), ` ${word}`);
  }

  function found(number, labels) {
    const [clause, kind, names, expected, actual, detail, count, first] = data.found[number];
    const values = [[labels[0], expected], [labels[1], actual], ["detail", detail]];
    const list = h("dl");
    for (const [label, value] of values.filter((each) => each[1])) {
      list.append(h("dt", {}, label), h("dd", {}, h("code", {}, value)));
    }
    const where = names.flatMap((name, index) => [index ? ", " : "", h("code", {}, name)]);
    return h("div", { class: "found" }, h("strong", {}, `${clause} ${kind}`), " of ", ...where,
      count > 1 ? quiet(` (${count}${first ? "; the values are those of the first" : ""})`) : "", list);
  }

  function deviation(number) {
    const [id, clause, impact, reason, upstream] = data.deviations[number];
    return h("div", { class: "deviation" }, h("strong", {}, `known deviation ${id} `), quiet(clause), " ",
      impactOf(impact), h("br"), ...rich(reason), h("br"),
      h("span", { class: "quiet" }, "Upstream: ", ...rich(upstream || "none found")));
  }

  function impactOf(name) {
    return name ? h("span", { class: `impact ${name}`, title: data.impacts[name] || "" }, name) : "";
  }

  function section(key, entry) {
    const step = key.startsWith("c"), name = data.columns[key];
    const labels = step ? name.split(" → ") : ["expected", "actual"];
    const seconds = entry.seconds ? `${entry.seconds.toFixed(2)} s` : "";
    const lines = [
      entry.reason, entry.accepted && `accepted: ${entry.accepted}`,
      entry.moved && `outputs within the tolerance: ${entry.moved}`,
      entry.costs && `seconds ${entry.costs[0]}; peak memory ${entry.costs[1]}`,
      entry.defaults && `${entry.defaults} fields or buffers that only one of the two has`,
    ];
    return [
      h("h3", {}, sign(entry.word), ` ${step ? "" : "in "}${name} `, impactOf(entry.impact), " ", quiet(seconds)),
      ...lines.filter(Boolean).map((line) => h("p", {}, line)),
      ...(step ? [] : (entry.deviations || []).map(deviation)),
      ...(entry.found || []).map((number) => found(number, labels)),
    ];
  }

  function rerun(line) {
    const button = h("button", { type: "button" }, "Copy");
    const code = h("code", {}, line);
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(line); } catch { document.execCommand("copy"); }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return [h("h3", {}, "Rerun"), h("div", { class: "rerun" }, code, button)];
  }

  function neighbours(id) {
    const shown = rows.filter((item) => !item.row.hidden).map((item) => item.id);
    const place = shown.indexOf(id);
    return { previous: shown[place - 1], next: place < 0 ? undefined : shown[place + 1], place, shown };
  }

  /** The clauses that the case breaks or changes in full, the others folded. */
  function promises(detail) {
    const words = (id) => h("p", { class: "clause" }, ...statement(id));
    const calm = (id) => detail.says[id].every((token) => /=(agree|unchanged)$/.test(token));
    const all = Object.keys(detail.says), quietly = all.filter(calm);
    if (quietly.length === all.length) return all.map(words);
    const folded = h("details", {}, h("summary", {}, `also checked: ${quietly.join(", ")}`), ...quietly.map(words));
    return [...all.filter((id) => !calm(id)).map(words), ...(quietly.length ? [folded] : [])];
  }

  function fill(id) {
    const detail = data.cases[id];
    const near = neighbours(id);
    byId("panel-title").textContent = id;
    byId("previous").disabled = !near.previous;
    byId("next").disabled = !near.next;
    byId("place").textContent = near.place < 0 ? "" : `${near.place + 1} of ${near.shown.length}`;
    byId("panel-body").replaceChildren(
      ...promises(detail),
      ...Object.entries(detail.in).flatMap(([key, entry]) => section(key, entry)),
      ...rerun(detail.rerun),
    );
  }

  function asked() {
    try { return decodeURIComponent(/^#case=(.*)$/.exec(location.hash)?.[1] ?? ""); } catch { return ""; }
  }

  function follow() {
    const id = asked();
    if (!Object.hasOwn(data.cases, id)) {
      if (panel.open) panel.close();
      return;
    }
    fill(id);
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
    byId("panel-title").focus({ preventScroll: true });
  }

  function go(direction) {
    const id = neighbours(asked())[direction];
    if (id) location.replace(`#case=${encodeURIComponent(id)}`);
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.find");
    if (button) find(button.dataset);
    if (event.target === panel) panel.close();
  });
  byId("close").addEventListener("click", () => panel.close());
  byId("previous").addEventListener("click", () => go("previous"));
  byId("next").addEventListener("click", () => go("next"));
  panel.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") go("previous");
    if (event.key === "ArrowRight") go("next");
  });
  panel.addEventListener("close", () => {
    const id = asked();
    history.replaceState(null, "", "#");
    rows.find((item) => item.id === id)?.row.querySelector("a").focus({ preventScroll: false });
  });
  addEventListener("hashchange", follow);
  filter();
  follow();
})();
