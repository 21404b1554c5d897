// The table's own script: asks the server what changed and puts it where it belongs.
// All HTML comes from the server, where every text was escaped; nothing here makes any.
window.orbweave = (() => {
  const columns = ["head", "talk", "side"];
  let show = null; // opens a design at the table of this page

  async function ask(question, asked) {
    const answer = await fetch(`/table/${question}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(asked),
    });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.json();
  }

  const inAddress = (name = "design") => new URLSearchParams(location.search).get(name) || "";

  function address(id, beside) {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries({ design: id, beside })) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    if (url.href !== location.href) history.pushState(null, "", url);
  }

  function tell(element, text) {
    let line = element.querySelector(".ow-fault");
    if (!line) {
      line = document.createElement("p");
      line.className = "ow-fault";
      line.setAttribute("role", "alert");
      element.prepend(line);
    }
    line.textContent = text;
    line.hidden = !text;
  }

  // Details somebody opened or closed stay so when their part is sent anew.
  function replace(part, html) {
    const open = new Map([...part.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
    const focused = part.contains(document.activeElement) && document.activeElement.dataset;
    const wanted = focused && focused.do ? `[data-do="${focused.do}"]` : null;
    const filled = [...part.querySelectorAll("[data-keep] [name]")];
    part.innerHTML = html;
    filled.forEach((was) => refill(part, was));
    part.querySelectorAll("details[id]").forEach((d) => {
      if (open.has(d.id)) d.open = open.get(d.id);
    });
    if (wanted) part.querySelector(wanted)?.focus();
  }

  // What somebody filled in stays when its form is sent anew.
  function refill(part, was) {
    const isChoice = ["radio", "checkbox"].includes(was.type);
    const named = [...part.querySelectorAll(`[data-keep] [name="${was.name}"]`)];
    const now = named.find((field) => !isChoice || field.value === was.value);
    if (!now) return;
    if (isChoice) now.checked = was.checked;
    else if (now.tagName !== "SELECT" || [...now.options].some((o) => o.value === was.value)) now.value = was.value;
    if (now.type === "range") now.dispatchEvent(new Event("input", { bubbles: true })); // its number is beside it
  }

  function lay(column, keys, parts) {
    const before = new Map([...column.children].map((child) => [child.dataset.part, child]));
    keys.forEach((key, place) => {
      let part = before.get(key);
      if (!part) {
        part = document.createElement("div");
        part.dataset.part = key;
      }
      before.delete(key);
      if (parts[key] && part.dataset.digest !== parts[key].digest) {
        replace(part, parts[key].html);
        part.dataset.digest = parts[key].digest;
      }
      if (column.children[place] !== part) column.insertBefore(part, column.children[place] || null);
    });
    before.forEach((part) => part.remove());
  }

  function table(element) {
    const root = element.querySelector(".ow-table") || element;
    const places = {};
    columns.forEach((name) => {
      places[name] = document.createElement(name === "side" ? "aside" : "div");
      places[name].className = `ow-${name}-column`;
      root.append(places[name]);
    });
    places.talk.setAttribute("role", "log");
    places.talk.setAttribute("aria-live", "off"); // the status line speaks; words would never end
    places.talk.setAttribute("aria-label", "What the team says");
    let design = inAddress();
    let beside = inAddress("beside"); // another design to compare it with
    let timer = 0;
    let round = 0; // answers to questions asked before a change of design are thrown away
    let lost = false; // whether the line tells of a look; what a button was told stays

    const known = () =>
      Object.fromEntries(
        [...root.querySelectorAll("[data-part]")].map((p) => [p.dataset.part, p.dataset.digest]),
      );

    async function look() {
      clearTimeout(timer);
      const asked = ++round;
      let wait = 2;
      try {
        const found = await ask("look", { design, beside, known: known() });
        if (asked !== round) return;
        wait = document.hidden ? 5 : found.wait_s;
        if (found.fault || lost) tell(element, found.fault);
        lost = Boolean(found.fault);
        if (!found.fault) {
          const atEnd = innerHeight + scrollY > document.body.scrollHeight - 80 && scrollY > 0;
          columns.forEach((name) => lay(places[name], found.columns[name], found.parts));
          root.dataset.status = found.status;
          if (found.design && !design) {
            design = found.design;
            const url = new URL(location.href);
            url.searchParams.set("design", design);
            history.replaceState(null, "", url);
          }
          if (atEnd && found.status === "running") scrollTo(0, document.body.scrollHeight);
        }
      } catch (error) {
        if (asked !== round) return;
        lost = true;
        tell(element, "The studio does not answer; it is asked again until it does.");
      }
      if (asked === round && element.isConnected) timer = setTimeout(look, wait * 1000);
    }

    show = (id, other) => {
      design = id;
      beside = other;
      tell(element, "");
      look();
    };
    addEventListener("popstate", () => show(inAddress(), inAddress("beside")));
    document.addEventListener("visibilitychange", () => document.hidden || look());

    root.addEventListener("click", async (event) => {
      const suggestion = event.target.closest("[data-suggest]");
      if (suggestion) return suggest(suggestion.dataset.suggest);
      const button = event.target.closest("[data-do]");
      if (!button || button.disabled) return;
      button.disabled = true; // a double click is one click
      const answer = await press(design, button);
      button.disabled = false;
      tell(element, answer.fault);
      if (!answer.fault) finish(button.closest("[data-form]"));
      if (answer.design && answer.design !== design) open(answer.design, answer.beside);
      else look();
    });
    root.addEventListener("submit", enter);
    look();
  }

  // Enter in a form of one line presses its button.
  function enter(event) {
    event.preventDefault();
    event.target.querySelector("[data-do]")?.click();
  }

  async function press(design, button) {
    const form = button.closest("[data-form]");
    const asked = {
      design,
      do: button.dataset.do,
      value: Number(button.dataset.value || 0),
      turn: Number(form?.dataset.turn || 0),
      text: form?.querySelector("textarea, [name=text]")?.value || "",
      branches: "branches" in button.dataset,
      model: form?.querySelector("[name=model]")?.value || "",
      seed: numberIn(form, "seed"),
      beside: form?.dataset.other || "",
      images: numberIn(form, "images") || 1,
    };
    try {
      return await ask("act", asked);
    } catch (error) {
      return { design: "", fault: "The studio does not answer; try again." };
    }
  }

  // An empty number is none.
  function numberIn(form, name) {
    const text = form?.querySelector(`[name=${name}]`)?.value || "";
    return text === "" ? null : Number(text);
  }

  // What was sent is taken off the form.
  function finish(form) {
    if (!form) return;
    if (form.tagName === "DETAILS") form.open = false;
    else form.querySelectorAll("textarea").forEach((area) => (area.value = ""));
  }

  function suggest(text) {
    type("#concept", text).focus();
  }

  // Gradio hears of a value only as if somebody had typed it.
  function type(place, text) {
    const box = document.querySelector(`${place} textarea, ${place} input`);
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    return box;
  }

  function open(id, beside = "") {
    if (!id) return;
    address(id, beside);
    if (show) show(id, beside);
    document.querySelector("#table")?.scrollIntoView({ block: "start" });
  }

  function library(element) {
    element.addEventListener("submit", enter);
    element.addEventListener("click", async (event) => {
      const like = event.target.closest("[data-like]");
      if (like) {
        type("#like", like.dataset.like);
        element.scrollIntoView({ block: "start" });
        return;
      }
      const button = event.target.closest("[data-do]");
      const card = event.target.closest("[data-sitting]");
      if (!button || !card || button.disabled) return;
      button.disabled = true;
      const answer = await press(card.dataset.sitting, button);
      button.disabled = false;
      tell(element, answer.fault);
      if (answer.fault) return;
      if (button.dataset.do === "repeat") {
        location.href = `/?design=${encodeURIComponent(answer.design)}`;
      } else if (button.dataset.do === "rate") {
        rated(button.closest(".ow-stars"), Number(button.dataset.value));
      } else {
        type("#changed", `${Date.now()}`); // boards are laid out by the server
      }
    });
  }

  function rated(group, given) {
    group.setAttribute("aria-label", `Your rating: ${given || "none"}`);
    [...group.children].forEach((star, place) => {
      const n = place + 1;
      star.textContent = n <= given ? "★" : "☆";
      star.setAttribute("aria-pressed", n <= given ? "true" : "false");
      star.dataset.value = n === given ? 0 : n;
    });
  }

  return { table, library, open, lay, tell };
})();
