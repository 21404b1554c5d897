// The batch, merge and judge pages: each asks the server what it shows and tells what was pressed.
// As at the table, all HTML comes from the server, where every text was escaped.
window.orbweave.room = (element, name) => {
  const { lay, tell } = window.orbweave;
  const root = element.querySelector(".ow-room");
  let at = new URLSearchParams(location.search).get("at") || "";
  let timer = 0;
  let round = 0; // answers to questions asked before something was pressed are thrown away
  let lost = false; // whether the line tells of a look; what a button was told stays

  async function ask(question, asked) {
    const answer = await fetch(`/room/${name}/${question}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(asked),
    });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return answer.json();
  }

  function fields() {
    const found = {};
    root.querySelectorAll("input[name], select[name], textarea[name]").forEach((field) => {
      if (field.type === "file") return;
      if (["checkbox", "radio"].includes(field.type) && !field.checked) return;
      found[field.name] = field.value;
    });
    return found;
  }

  const known = () =>
    Object.fromEntries([...root.children].filter((p) => p.dataset.part).map((p) => [p.dataset.part, p.dataset.digest]));

  async function look() {
    clearTimeout(timer);
    const asked = ++round;
    let wait = 2;
    try {
      const found = await ask("look", { at, known: known(), fields: fields() });
      if (asked !== round) return;
      wait = document.hidden ? 5 : found.wait_s;
      if (found.fault || lost) tell(element, found.fault);
      lost = Boolean(found.fault);
      if (found.keys.length) lay(root, found.keys, found.parts);
    } catch (error) {
      if (asked !== round) return;
      lost = true;
      tell(element, "The studio does not answer; it is asked again until it does.");
    }
    if (asked === round && element.isConnected) timer = setTimeout(look, wait * 1000);
  }

  function go(to) {
    at = to;
    const url = new URL(location.href);
    if (at) url.searchParams.set("at", at);
    else url.searchParams.delete("at");
    if (url.href !== location.href) history.pushState(null, "", url);
  }

  const asAddress = (file) =>
    new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done({ name: file.name, data: String(reader.result) });
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(file);
    });

  // Of a folder only what a page can use is sent; `data-names` holds names and endings.
  async function files() {
    const found = [];
    for (const field of root.querySelectorAll("input[type=file]")) {
      const names = (field.dataset.names || "").split(",").filter(Boolean);
      const fits = (file) => names.some((n) => (n.startsWith(".") ? file.name.endsWith(n) : file.name === n));
      const isOnTop = (file) => file.webkitRelativePath.split("/").length <= 2;
      const chosen = [...field.files].filter((f) => !names.length || (fits(f) && isOnTop(f)));
      const size = chosen.reduce((sum, file) => sum + file.size, 0);
      const most = Number(field.dataset.most || 0);
      if (size > most) throw new Error(`wanted at most ${most / 1e6} MB, got ${(size / 1e6).toFixed(1)} MB`);
      found.push(...(await Promise.all(chosen.map(asAddress))));
    }
    return found;
  }

  async function press(deed, value, button) {
    if (button?.disabled) return;
    if (button) button.disabled = true; // a double click is one click
    let answer;
    try {
      const sends = deed === "add" ? await files() : [];
      answer = await ask("act", { at, do: deed, value: value || "", fields: fields(), files: sends });
    } catch (error) {
      const text = error.message.startsWith("wanted") ? error.message : "The studio does not answer; try again.";
      answer = { at, fault: text };
    }
    if (button) button.disabled = false;
    tell(element, answer.fault);
    if (answer.fault) element.scrollIntoView({ block: "nearest" });
    const moves = !answer.fault && answer.at !== at;
    if (moves) go(answer.at);
    await look();
    if (moves) root.querySelector(".ow-head")?.scrollIntoView({ block: "start" });
  }

  root.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-at]");
    if (link && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      go(link.dataset.at);
      tell(element, "");
      look();
    }
    const button = event.target.closest("button[data-do]");
    if (button) press(button.dataset.do, button.dataset.value, button);
  });
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target.closest("form[data-do]");
    if (form) press(form.dataset.do, "", event.submitter);
  });

  function show(range) {
    const number = range.closest("label")?.querySelector("output");
    if (number) number.textContent = Number(range.value).toFixed(2);
  }

  let soon = 0;
  root.addEventListener("input", (event) => {
    if (event.target.type === "range") show(event.target);
    if (!event.target.closest("[data-live]")) return;
    clearTimeout(soon);
    soon = setTimeout(look, 250);
  });

  // A key presses the button that names it, unless something is being typed.
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = [...root.querySelectorAll("button[data-key]")].find((b) => b.dataset.key.split(" ").includes(event.key));
    if (!button) return;
    event.preventDefault();
    button.click();
  });
  addEventListener("popstate", () => {
    at = new URLSearchParams(location.search).get("at") || "";
    look();
  });
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
};
