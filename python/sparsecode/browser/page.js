"use strict";
// Data come in scripts that call sparsecode.take: a page from a disk may not fetch its neighbours.
const sparsecode = (() => {
  const asked = {}, arriving = {};
  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  }
  return {
    take(name, packed) { arriving[name](unpack(packed)); },
    load(name) {
      return asked[name] ??= new Promise((resolve, reject) => {
        arriving[name] = resolve;
        const script = document.createElement("script");
        script.src = `data/${name.split("/").map(encodeURIComponent).join("/")}.js`;
        script.onerror = () => { delete asked[name]; reject(new Error(`${script.getAttribute("src")} is not there: copy the whole folder`)); };
        document.head.append(script);
      });
    },
  };
})();
window.sparsecode = sparsecode;

(async () => {
  const PAGE = 100, ALL = "*", MINUS = "\u2212";
  const $ = (id) => document.getElementById(id);
  const COLUMNS = [  // of the list: key, title, what it says, how it is shown
    ["feature", "feature", "number in its dictionary", (v) => v],
    ["found", "found in", "how many of the other trained dictionaries have an atom above the cosine of the comparison", (v) => v],
    ["cosine", "best cosine", "with the nearest atom of any other dictionary that is no baseline", (v) => v.toFixed(3)],
    ["density", "density", "share of tokens on which it is active", percent],
    ["peak", "peak", "largest activation", round],
    ["score", "score", "how well the label predicts activations on other text: correlation", (v) => v.toFixed(2)],
  ];
  const READ = { relu: "what is above 0", jumprelu: "what is above a threshold", batchtopk: "what is above a threshold", topk: "the k largest of a token" };
  const lists = {};  // by name of a dictionary: its columns, joined
  const tokens = [];
  let run, byName, order = [], orderKey = "", busy = 0;

  function percent(v) { return v === 0 ? "0" : v < 1e-4 ? (100 * v).toExponential(1) + "%" : (100 * v).toPrecision(3) + "%"; }
  function round(v) { return v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e5 ? String(+v.toPrecision(3)) : v.toExponential(1); }
  function signed(v) { return v == null ? "" : (v < 0 ? MINUS : "+") + round(Math.abs(v)); }
  function make(tag, about = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(about)) if (value != null) element.setAttribute(key, value);
    element.append(...inside.filter((one) => one != null));
    return element;
  }

  // Tokens are text from anywhere: they only ever become text nodes, with what is invisible replaced.
  const SIGNS = { "\n": "⏎", "\t": "⇥", "\r": "␍" };
  function visible(text) {
    if (/^ +$/.test(text)) return text.length < 3 ? "␣".repeat(text.length) : `␣×${text.length}`;
    const short = text.length > 120 ? text.slice(0, 100) + `…(${text.length})` : text;
    return short.replace(/ {3,}/g, (found) => `␣×${found.length}`).replace(/[\n\t\r]/g, (sign) => SIGNS[sign])
      .replace(/[\u00a0\u2002\u2003\u2007\u2009\u202f\u3000]/g, "␣").replace(/(?![\u200c\u200d])[\p{C}\u2028\u2029]/gu, "\ufffd");
  }
  const escaped = (bytes) => bytes.map((byte) => byte > 31 && byte < 127 ? String.fromCharCode(byte) : "\\x" + byte.toString(16).padStart(2, "0")).join("");
  const plain = (id) => { const found = tokens[id] ?? `<${id}>`; return typeof found === "string" ? found : escaped(found); };
  const chip = (id) => make("span", { class: "chip token" }, visible(plain(id)));
  // Texts of tokens side by side: where several make one character it stands at the first of them.
  function together(ids) {
    const texts = [];
    for (let first = 0; first < ids.length;) {
      let behind = first + 1, text = plain(ids[first]);
      if (Array.isArray(tokens[ids[first]])) {
        const bytes = [];
        for (let at = first; at < Math.min(first + 4, ids.length) && Array.isArray(tokens[ids[at]]); at++) {
          bytes.push(...tokens[ids[at]]);
          try {
            text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
            behind = at + 1;
            break;
          } catch { /* not whole yet */ }
        }
      }
      texts.push(text);
      while (++first < behind) texts.push("");
    }
    return texts;
  }

  // All of the state is in the address: d dictionary, f feature, q search, sort, p page, and a range by each column.
  const state = () => new URLSearchParams(location.hash.slice(1));
  function address(changes, from = state()) {
    const next = new URLSearchParams(from);
    for (const [key, value] of Object.entries(changes)) value == null || value === "" ? next.delete(key) : next.set(key, value);
    return "#" + next;
  }
  const go = (changes) => { location.hash = address(changes); };
  function replace(changes) { history.replaceState(null, "", address(changes)); show(); }
  const chosen = () => { const d = state().get("d"); return d === ALL || byName[d] ? d : run.dictionaries[0].name; };
  const featureLink = (name, f, words) => make("a", { href: address({ d: name, f, p: null }) }, words ?? String(f));

  async function list(name) {
    if (!lists[name]) {
      const about = byName[name];
      const parts = await Promise.all([...Array(about.lists).keys()].map((part) => sparsecode.load(`${about.slug}/list-${part}`)));
      const columns = {};
      for (const key of Object.keys(parts[0].columns))
        columns[key] = parts[0].columns[key] && [].concat(...parts.map((part) => part.columns[key]));
      columns.place = new Map(columns.feature.map((f, place) => [f, place]));
      lists[name] = columns;
    }
    return lists[name];
  }

  const raised = (own, at) => own.raised ? own.raised[at] : [];
  function matches(own, at, words) {
    own.text ??= [];
    const text = own.text[at] ??= [own.label[at], ...own.top[at].map(plain), ...raised(own, at).map(plain)].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  }

  async function ordered() {
    const at = state(), name = chosen();
    const key = ["sort", "q", ...COLUMNS.map(([column]) => column)].map((one) => at.get(one)).join("\n") + "\n" + name;
    if (key === orderKey) return order;
    const names = name === ALL ? run.dictionaries.map((one) => one.name) : [name];
    const loaded = await Promise.all(names.map(list));
    const words = (at.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const ranges = COLUMNS.map(([column]) => [column, (at.get(column) || "").split("..")])
      .filter(([, ends]) => ends.length === 2).map(([column, ends]) => [column, ...ends.map((end) => end === "" ? NaN : +end)]);
    const sort = at.get("sort") || (loaded[0].found ? "-found" : "feature");
    const column = sort.replace(/^-/, ""), sign = sort.startsWith("-") ? -1 : 1;
    const found = [];
    loaded.forEach((own, which) => {
      for (let i = 0; i < own.feature.length; i++) {
        const inside = ranges.every(([one, low, high]) => {
          const value = own[one] && own[one][i];
          return value != null && !(value < low) && !(value > high);
        });
        if (inside && (!words.length || matches(own, i, words))) found.push([names[which], own, i]);
      }
    });
    const value = ([name, own, i]) => column === "label" ? own.label[i] || null : column === "dictionary" ? name : column === "top" ? own.top[i].map(plain)[0]
      : column === "raised" ? raised(own, i).map(plain)[0] : own[column] ? own[column][i] : null;
    const keyed = found.map((one) => [value(one), one]);
    keyed.sort(([a, one], [b, two]) => {
      if ((a == null) !== (b == null)) return a == null ? 1 : -1;
      return (a < b ? -sign : a > b ? sign : 0) || (two[1].density[two[2]] - one[1].density[one[2]]) || one[2] - two[2];
    });
    orderKey = key;
    order = keyed.map(([, one]) => one);
    return order;
  }

  async function showList(mine) {
    const at = state(), name = chosen(), found = await ordered();
    if (mine !== busy) return;
    $("feature").hidden = true;
    $("list").hidden = false;
    $("dictionary").value = name;
    if (document.activeElement !== $("search")) $("search").value = at.get("q") || "";
    for (const input of $("ranges").querySelectorAll("input")) {
      const ends = (at.get(input.dataset.column) || "..").split("..");
      if (document.activeElement !== input) input.value = ends[+input.dataset.end] ?? "";
      if (input.value) $("filters").open = true;
    }
    const pages = Math.max(1, Math.ceil(found.length / PAGE)), page = Math.min(pages, Math.max(1, parseInt(at.get("p"), 10) || 1));
    const total = name === ALL ? run.dictionaries.reduce((sum, one) => sum + one.shown, 0) : byName[name].shown;
    $("count").textContent = `${found.length.toLocaleString("en")} of ${total.toLocaleString("en")} features`;
    const some = found.slice((page - 1) * PAGE, page * PAGE);
    const there = COLUMNS.filter(([column]) => some.some(([, own, i]) => own[column] && own[column][i] != null));
    const heads = [...(name === ALL ? [["dictionary", "dictionary", ""]] : []), ...there, ["label", "label", "what it responds to"], ["top", "strongest tokens", ""], ["raised", "raises", "tokens whose logits it raises"]];
    const sort = at.get("sort") || "";
    $("table").tHead.rows[0].replaceChildren(...heads.map(([column, title, help]) => {
      const down = sort === "-" + column, up = sort === column;
      const button = make("button", { type: "button", title: help || null }, title + (down ? " ▼" : up ? " ▲" : ""));
      button.onclick = () => go({ sort: down || (!up && ["feature", "label", "top", "raised", "dictionary"].includes(column)) ? column : "-" + column, p: null });
      return make("th", { scope: "col", "aria-sort": down ? "descending" : up ? "ascending" : null, class: there.some((one) => one[0] === column) ? "number" : null }, button);
    }));
    $("table").tBodies[0].replaceChildren(...some.map(([which, own, i]) => make("tr", {},
      ...(name === ALL ? [make("td", {}, which)] : []),
      ...there.map(([column, , , show]) => make("td", { class: "number" },
        column === "feature" ? featureLink(which, own.feature[i]) : own[column] && own[column][i] != null ? String(show(own[column][i])) : "–")),
      make("td", { class: "words" }, own.label[i]),
      make("td", { class: "words" }, ...own.top[i].map(chip)),
      make("td", { class: "words" }, ...raised(own, i).map(chip)))));
    const step = (words, to) => to >= 1 && to <= pages ? make("a", { href: address({ p: to }) }, words) : null;
    $("pages").replaceChildren(...[step("← previous", page - 1), make("span", { class: "muted" }, `page ${page} of ${pages}`), step("next →", page + 1)].filter(Boolean));
    document.title = `${name === ALL ? "All" : name} – features`;
  }

  const fact = (name, value) => value == null ? null : make("div", {}, make("dt", {}, name), make("dd", {}, String(value)));
  const panel = (title, wide, ...inside) => make("section", { class: wide ? "panel wide" : "panel" }, make("h3", {}, title), ...inside);
  function table(heads, rows) {
    return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", { class: typeof cell === "string" && /^[+\u2212\d]/.test(cell) ? "number" : null }, cell ?? "–"))))));
  }
  function context([row, code, before, ids, hex], peak) {
    const codes = ids.map((_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16) / 255);
    const texts = together(ids);
    const line = make("span", { class: "text" }, ...ids.map((_, i) => {
      const token = make("span", { class: i === before ? "token peak" : "token", title: codes[i] ? round(codes[i] * peak) : null }, visible(texts[i]));
      token.style.setProperty("--strength", `${Math.round(100 * codes[i])}%`);
      return token;
    }));
    const item = make("li", { tabindex: 0, title: `row ${row}` }, make("div", { class: "line" }, make("span", { class: "code" }, round(code)), line));
    const open = () => item.children.length > 1 || item.append(make("p", { class: "detail" },
      ids.map((_, i) => codes[i] ? `${visible(texts[i])} ${round(i === before ? code : codes[i] * peak)}` : "").filter(Boolean).join(" · ") + ` (row ${row.toLocaleString("en")})`));
    item.onfocus = item.onclick = open;
    item.onblur = () => item.children[1]?.remove();
    return item;
  }
  const contexts = (some, peak) => make("ol", { class: "contexts" }, ...some.map((one) => context(one, peak)));
  function bars(counts, peak) {
    const most = Math.log1p(Math.max(...counts)), said = `from 0 to ${round(peak)}: ${counts.join(", ")} tokens`;
    const drawn = make("div", { class: "bars", role: "img", "aria-label": `Histogram of activations ${said}` }, ...counts.map((count, i) => {
      const bar = make("div", { title: `${round(i * peak / counts.length)} to ${round((i + 1) * peak / counts.length)}: ${count.toLocaleString("en")} tokens` });
      bar.style.height = `${most ? 100 * Math.log1p(count) / most : 0}%`;
      return bar;
    }));
    return [drawn, make("div", { class: "axis" }, make("span", {}, "0"), make("span", {}, "tokens, log scale"), make("span", {}, round(peak)))];
  }

  async function showFeature(mine, f) {
    const name = chosen() === ALL ? run.dictionaries[0].name : chosen(), about = byName[name], own = await list(name), found = await ordered();
    const place = own.place.get(f);
    if (place === undefined) throw new Error(`${name} has no feature ${state().get("f")} here`);
    const record = (await sparsecode.load(`${about.slug}/${String(Math.floor(place / run.shard)).padStart(4, "0")}`))[place % run.shard];
    if (mine !== busy) return;
    const peak = own.peak[place], total = record.h.reduce((sum, count) => sum + count, 0);
    const at = found.findIndex(([which, , i]) => which === name && i === place);
    const beside = (step, words) => found[at + step] && at >= 0 ? make("a", { href: address({ d: found[at + step][0], f: found[at + step][1].feature[found[at + step][2]] }), rel: step < 0 ? "prev" : "next" }, words) : null;
    const link = (which, one) => one == null || one < 0 ? null : featureLink(which, one);
    const component = (one) => { const neurons = run.dictionaries.find((entry) => entry.name === "neurons"); return neurons && run.component === "neuron" && one < neurons.size ? featureLink("neurons", one) : String(one); };
    const pairs = (title, heads, some, first) => some.length ? make("div", {}, make("h4", {}, title), table(heads, some.map(([one, value]) => [first(one), signed(value)]))) : null;
    const per = record.h.length / record.b.length;
    const sections = [
      make("nav", { "aria-label": "Features" }, make("a", { href: address({ f: null }) }, "← list"), beside(-1, "← previous"), beside(1, "next →")),
      make("h2", { tabindex: -1 }, `${name} · feature ${f}`),
      own.label[place] ? make("p", { class: "label" }, own.label[place], make("span", { class: "muted" }, own.score[place] == null ? ` (${run.labels})` : ` (score ${own.score[place].toFixed(2)}, ${run.labels})`)) : null,
      make("dl", { class: "facts" }, fact("active on", percent(own.density[place])), fact("tokens", total.toLocaleString("en") + " of " + run.rows.toLocaleString("en")), fact("peak", round(peak)),
        own.found ? fact("found in", `${own.found[place]} of ${about.among} other dictionaries (cosine above ${run.threshold})`) : null, fact("codes are", READ[about.activation] ?? about.activation)),
      make("div", { class: "grid" },
        panel("Strongest contexts", true, total ? contexts(record.s, peak) : make("p", { class: "muted" }, "It is active on none of the tokens that were read.")),
        total ? panel("Activations", false, ...bars(record.h, peak)) : null,
        Object.keys(record.e).length || run.no_effects ? panel("Tokens it raises and lowers", false,
          ...Object.entries(record.e).map(([way, [up, ups, down, downs]]) => make("div", {}, make("h4", {}, run.effects[way]), make("div", { class: "columns" },
            table(["raised", "logit"], up.map((id, i) => [chip(id), signed(ups[i])])), table(["lowered", "logit"], down.map((id, i) => [chip(id), signed(downs[i])]))))),
          run.no_effects ? make("p", { class: "muted" }, run.no_effects) : null) : null,
        panel("Other dictionaries", false, about.others.length ? table(["dictionary", "nearest", "cosine", "one-to-one", "cosine"], about.others.map((other, i) => {
          const [near, cosine, partner, matched] = record.o[i];
          return [other, link(other, near), signed(cosine), link(other, partner), signed(matched)];
        })) : make("p", { class: "muted" }, "There are none.")),
        panel("Its own dictionary", false, make("div", { class: "columns" }, pairs("nearest", ["feature", "cosine"], record.n, (one) => featureLink(name, one)), pairs("active with it", ["feature", "correlation"], record.t, (one) => featureLink(name, one)))),
        panel(run.component === "neuron" ? "Neurons" : "Dimensions", false, make("div", { class: "columns" }, pairs("its atom is made of", [run.component, "share"], record.u, component), pairs("active with it", [run.component, "correlation"], record.v, component))),
        total ? panel("By strength", true, ...record.b.map((some, band) => {
          const low = Math.round(100 * band / record.b.length), high = Math.round(100 * (band + 1) / record.b.length);
          const count = record.h.slice(per * band, per * (band + 1)).reduce((sum, one) => sum + one, 0);
          return make("div", {}, make("h4", {}, `${low} to ${high} % of the peak: ${count.toLocaleString("en")} tokens`), contexts(some, peak));
        }).reverse()) : null),
    ];
    $("list").hidden = true;
    $("feature").hidden = false;
    $("feature").replaceChildren(...sections.filter(Boolean));
    $("feature").querySelector("h2").focus({ preventScroll: true });
    scrollTo(0, 0);
    document.title = `${name} ${f}`;
  }

  async function show() {
    const mine = ++busy, f = state().get("f");
    try {
      $("problem").hidden = true;
      await (f == null ? showList(mine) : showFeature(mine, +f));
    } catch (error) {
      if (mine !== busy) return;
      $("problem").textContent = error.message;
      $("problem").hidden = false;
      if (f != null) await showList(mine);
    }
    if (mine === busy) document.documentElement.dataset.shown = location.hash || "#";
  }

  async function tryText(event) {
    event.preventDefault();
    const answer = await fetch("try?" + new URLSearchParams({ d: chosen(), text: $("try").querySelector("textarea").value }));
    const said = await answer.json();
    $("tried").replaceChildren(...(answer.ok ? said.map(({ text, features }) => make("li", {}, make("span", { class: "chip token" }, visible(text)), " ",
      ...features.flatMap(([name, one, code]) => [featureLink(name, one, chosen() === ALL ? `${name} ${one}` : null), ` ${round(code)}  `]))) : [make("li", {}, said.problem)]));
  }

  try {
    run = await sparsecode.load("run");
    for (const part of await Promise.all([...Array(run.tokens).keys()].map((part) => sparsecode.load(`tokens-${part}`)))) for (const text of part) tokens.push(text);
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    throw error;
  }
  byName = Object.fromEntries(run.dictionaries.map((one) => [one.name, one]));
  $("subtitle").textContent = run.subtitle + (run.contexts_known ? "" : " Contexts may run across borders of texts.");
  const kinds = { trained: "Trained", baseline: "Baselines", other: "Others" };
  for (const [kind, title] of Object.entries(kinds)) {
    const own = run.dictionaries.filter((one) => one.kind === kind);
    if (own.length) $("dictionary").append(make("optgroup", { label: title }, ...own.map((one) => make("option", { value: one.name }, `${one.name} (${one.shown.toLocaleString("en")})`))));
  }
  $("dictionary").append(make("option", { value: ALL }, "all of them"));
  $("ranges").append(...COLUMNS.slice(1).map(([column, title]) => make("fieldset", {}, make("legend", {}, title),
    ...["from", "to"].map((end, i) => make("input", { type: "number", step: "any", "aria-label": `${title} ${end}`, placeholder: end, "data-column": column, "data-end": i })))));
  $("dictionary").onchange = () => go({ d: $("dictionary").value, p: null });
  $("search").oninput = () => replace({ q: $("search").value, p: null });
  $("ranges").oninput = (event) => {
    const ends = [...$("ranges").querySelectorAll(`[data-column=${event.target.dataset.column}]`)].map((input) => input.value);
    replace({ [event.target.dataset.column]: ends.some(Boolean) ? ends.join("..") : null, p: null });
  };
  $("controls").onsubmit = (event) => event.preventDefault();
  if (document.documentElement.dataset.serve) { $("try").hidden = false; $("try").onsubmit = tryText; }
  addEventListener("hashchange", show);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const rows = [...$("table").tBodies[0].rows], at = rows.findIndex((row) => row.contains(document.activeElement));
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (event.key === "/") $("list").hidden ? go({ f: null }) : $("search").focus();
    else if (event.key === "Escape" && !$("feature").hidden) go({ f: null });
    else if (!$("feature").hidden && ["ArrowLeft", "ArrowRight"].includes(event.key)) $("feature").querySelector(event.key === "ArrowLeft" ? "[rel=prev]" : "[rel=next]")?.click();
    else if (step && !$("list").hidden) rows[Math.max(0, Math.min(rows.length - 1, at + step))]?.querySelector("a").focus();
    else return;
    event.preventDefault();
  });
  await show();
})();
