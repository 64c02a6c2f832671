// The console's only script. Without it every page works; with it a page that is left open stays true.
//
// A stream says that something has changed; the page then asks for itself again and puts in place what differs.
"use strict";

(() => {
  const sign = document.getElementById("live");
  const settle = 400; // ms: what changes together is asked for once
  const atMost = 2000; // ms between two questions, however much happens
  const unseen = 30000; // the same where nobody looks: the title of the tab still says how it stands
  const ages = 60000; // ms: "3 min ago" is looked at again
  const most = 3; // changes that are read out
  const first = 1000, longest = 30000; // ms until a broken stream is tried again
  let stream = null, waiting = null, asking = false, again = false, asked = 0, wait = first, tag = null;

  function say(word, kind) {
    if (!sign || sign.textContent === word) return;
    sign.textContent = word;
    sign.className = "live " + kind;
  }

  function busy() {
    const at = document.activeElement;
    return at && at.matches("input, select, textarea");
  }

  const stops = "a, button, summary, [tabindex]";

  // Where the reader was, in what has taken its place.
  function found(at, where, made) {
    const all = [...made.querySelectorAll(stops)];
    const like = (each) => each.tagName === at.tagName && each.textContent === at.textContent
      && each.getAttribute("href") === at.getAttribute("href");
    return all.find(like) || all[where];
  }

  // What the reader has opened stays open, and the focus where it was.
  function put(old, fresh) {
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    const at = old.contains(document.activeElement) ? document.activeElement : null;
    const where = at && [...old.querySelectorAll(stops)].indexOf(at);
    const made = document.importNode(fresh, true);
    const same = at && (at === old ? made : found(at, where, made));
    old.replaceWith(made);
    made.querySelectorAll("details").forEach((each, i) => { each.open = open[i] || false; });
    made.querySelectorAll(".scroll").forEach((each, i) => { each.scrollLeft = scrolled[i] || 0; });
    if (same) same.focus({ preventScroll: true });
  }

  const parts = (of) => [...of.querySelectorAll("[data-part]")];
  const said = (of) => [...of.querySelectorAll("[data-say]")].map((each) => each.dataset.say);

  // Each part that differs; the whole where there are others than before.
  function show(fresh) {
    const before = new Set(said(document));
    const main = fresh.querySelector("main");
    const ids = (of) => parts(of).map((each) => each.id).join();
    if (ids(fresh) !== ids(document)) put(document.getElementById("main"), main);
    for (const part of parts(fresh)) {
      const old = document.getElementById(part.id);
      if (old.outerHTML !== part.outerHTML && !sameBut(old, part)) put(old, part);
    }
    document.title = main.dataset.title;
    tell(said(fresh).filter((each) => !before.has(each)));
  }

  // Who does not see the page hears what has changed, and not every figure of it.
  function tell(changes) {
    const news = document.getElementById("news");
    if (!news || !changes.length) return;
    const more = changes.length - most;
    news.textContent = changes.slice(0, most).join(". ") + (more > 0 ? `. And ${more} more.` : "");
  }

  async function refresh() {
    waiting = null;
    if (busy()) { again = true; return; }
    if (asking) { again = true; return; }
    asking = true;
    again = false;
    asked = Date.now();
    try {
      const headers = { "X-Wave-Part": "main" };
      if (tag) headers["If-None-Match"] = tag;
      const answer = await fetch(location.href, { headers, credentials: "same-origin", cache: "no-store", redirect: "manual" });
      if (answer.type === "opaqueredirect" || [401, 403, 404].includes(answer.status)) {
        // The session is over, or this may not be seen any more: the page says so and leads to the door.
        location.reload();
        return;
      }
      if (answer.status === 200) {
        tag = answer.headers.get("etag");
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        show(fresh);
      } else if (answer.status !== 304) {
        again = true; // the server is busy or in trouble: what is shown may be old
      }
    } catch (_) {
      again = true; // the stream says when the server is there again
    } finally {
      asking = false;
      if (again && stream && stream.readyState === EventSource.OPEN) soon();
    }
  }

  // A part in which only a <details> was opened is the same.
  function sameBut(old, fresh) {
    const copy = old.cloneNode(true);
    copy.querySelectorAll("details[open]").forEach((each) => each.removeAttribute("open"));
    return copy.outerHTML === fresh.outerHTML;
  }

  function soon() {
    if (waiting !== null) return;
    const apart = document.hidden ? unseen : atMost;
    waiting = setTimeout(refresh, Math.max(settle, asked + apart - Date.now()));
  }

  function listen() {
    stream = new EventSource("/live");
    stream.onopen = () => { wait = first; say("live", "on"); soon(); };
    stream.addEventListener("change", soon);
    stream.onerror = () => {
      say("reconnecting", "off");
      if (stream.readyState === EventSource.CLOSED) {
        stream = null;
        soon(); // it may be the session that is over: the page itself tells
        setTimeout(listen, wait);
        wait = Math.min(longest, wait * 2);
      }
    };
  }

  if (document.body.hasAttribute("data-live")) {
    listen();
    setInterval(() => { if (stream && stream.readyState === EventSource.OPEN) soon(); }, ages);
    document.addEventListener("visibilitychange", () => { clearTimeout(waiting); waiting = null; soon(); });
    document.addEventListener("focusout", () => { if (again) soon(); });
  }

  // What is being worked on is looked at again until it is done.
  setInterval(() => { if (document.querySelector("[data-again]")) soon(); }, 1500);

  // A button that was pressed is not pressed again while the answer is on its way.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    setTimeout(() => { delete form.dataset.sent; }, 5000);
  });
})();
