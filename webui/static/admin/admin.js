"use strict";
// What every page uses: the menu on a phone, questions before what cannot be undone, live parts, short messages.
// Pages work without it, but for what is live by its nature.
const postern = {
  csrf: document.querySelector('meta[name="csrf"]')?.content ?? "",

  // Say something short at the bottom of the page.
  toast(text) {
    const line = document.createElement("p");
    line.textContent = text;
    const box = document.getElementById("toast");
    box.append(line);
    setTimeout(() => line.remove(), 6000);
  },

  // Ask the REST API or a form address with this session; resolves to the answer's JSON, or throws an Error for people.
  async send(method, path, body) {
    const headers = { "X-CSRF-Token": postern.csrf, Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    if (answer.status === 401) location.reload();
    const value = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(value.detail || `The gateway answered ${answer.status}.`);
    return value;
  },

  // A stream of events that rests while the page is hidden, so that open tabs do not use up the browser's connections.
  // `handlers` maps event names to functions of the event's data; `onState` is told whether the stream is up.
  live(path, handlers, onState = () => {}) {
    let source = null;
    const close = () => { source?.close(); source = null; onState(false); };
    const open = () => {
      if (source) return;
      source = new EventSource(path);
      source.onopen = () => onState(true);
      source.onerror = () => {
        onState(false);
        if (source?.readyState === EventSource.CLOSED) {  // refused: the login is over, or too many are open
          source = null;
          setTimeout(() => { if (!document.hidden) fetch(location.href, { redirect: "manual", headers: { "X-CSRF-Token": postern.csrf } })
            .then((answer) => (answer.status === 401 ? location.reload() : open())).catch(() => setTimeout(open, 3000)); }, 3000);
        }
      };
      for (const [name, handler] of Object.entries(handlers))
        source.addEventListener(name, (event) => handler(JSON.parse(event.data), event));
    };
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    window.addEventListener("pagehide", close);
    if (!document.hidden) open();
    return { close };
  },

  // Put a piece of a page, made and escaped by the gateway, in the place of an element.
  replace(element, html) {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const fresh = holder.content.firstElementChild;
    if (element.contains(document.activeElement)) return element;  // not under somebody's fingers
    element.replaceWith(fresh);
    return fresh;
  },
};

document.querySelector(".menu")?.addEventListener("click", (event) => {
  const open = document.getElementById("nav").classList.toggle("open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  document.getElementById("nav")?.classList.remove("open");
  document.querySelector(".menu")?.setAttribute("aria-expanded", "false");
  document.querySelector(".who")?.removeAttribute("open");
});
document.addEventListener("click", (event) => {
  const who = document.querySelector(".who[open]");
  if (who && !who.contains(event.target)) who.removeAttribute("open");
});
// <form data-confirm="Question?"> asks first.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) { event.preventDefault(); return; }
  if (event.target.method !== "get" && !("stay" in event.target.dataset)) for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
});
// <select data-submit> sends its form when it is changed.
document.addEventListener("change", (event) => { if (event.target.matches("[data-submit]")) event.target.form.requestSubmit(); });
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.dataset.copy || document.getElementById(button.dataset.copyFrom)?.textContent || "";
  navigator.clipboard?.writeText(text.trim()).then(() => postern.toast("Copied."), () => postern.toast("The browser did not let us copy."));
});
document.addEventListener("click", (event) => { if (event.target.closest("[data-print]")) window.print(); });
const zoneField = document.querySelector('input[data-timezone="1"]');
if (zoneField) zoneField.value = Intl.DateTimeFormat().resolvedOptions().timeZone || zoneField.value;

// <… data-live="/stream"> keeps parts of the page true: the gateway sends html, made and escaped as that of the page.
const livePlace = document.querySelector("[data-live]");
if (livePlace) {
  const state = document.getElementById("live-state");
  const parts = (found) => { for (const [id, html] of Object.entries(found)) { const old = document.getElementById(id); if (old) postern.replace(old, html); } };
  const stream = postern.live(livePlace.dataset.live, {
    parts,
    rows({ order, rows, parts: others }) {
      parts(others ?? {});
      const body = document.getElementById("rows");
      if (!body) return;
      const wanted = new Set(order);
      for (const row of [...body.children]) if (!wanted.has(row.id)) row.remove();
      const first = livePlace.dataset.seen;
      order.forEach((id, place) => {
        let row = document.getElementById(id);
        if (!row) {
          if (!rows[id]) return;
          const holder = document.createElement("template");
          holder.innerHTML = rows[id];
          row = holder.content.firstElementChild;
          if (first) row.classList.add("fresh");
        } else if (rows[id]) row = postern.replace(row, rows[id]);
        if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
      });
      livePlace.dataset.seen = "1";
      livePlace.querySelector(".empty")?.toggleAttribute("hidden", order.length > 0);
    },
    over() { location.reload(); },
    gone() { stream.close(); if (state) state.textContent = "no longer here"; },
  }, (up) => state?.classList.toggle("on", up));
}

// <span data-countdown="60"> counts down, and looks again at the end.
for (const place of document.querySelectorAll("[data-countdown]")) {
  let left = Number(place.dataset.countdown) || 0;
  const timer = left && setInterval(() => {
    left -= 1;
    place.textContent = ` in ${left} seconds`;
    if (left <= 0) { clearInterval(timer); setTimeout(() => location.reload(), 1500); }
  }, 1000);
}
