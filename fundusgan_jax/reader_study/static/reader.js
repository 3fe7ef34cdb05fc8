"use strict";
// One image at a time. Time runs from the first painted frame of the decoded image to the key or click.
(() => {
  const SMALLEST_PX = 512; // smaller pictures are shown enlarged, all of them alike
  const DEAD_MS = 300; // after a new image, against a key that is held and a second click
  const byId = (id) => document.getElementById(id);
  const root = byId("reading"), frame = byId("frame"), status = byId("status");
  const choices = { real: byId("real"), synthetic: byId("synthetic") };
  const settings = root.dataset;
  const images = new Map();
  let state = null, ready = false, shownAt = 0, hiddenMs = 0, hiddenCount = 0, hiddenSince = null, blurs = 0;
  let scale = 1, left = 0, top = 0, largestScale = 1, drag = null, begun = false;

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const frames = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  const fill = (text, position, total) => text.replace("{position}", position).replace("{total}", total);

  // Tries again for as long as the network or the server is away; the organiser's refusals lead home.
  async function ask(path, body, trouble) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 10000)) {
      try {
        const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
        const answer = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
        if (answer.ok) { if (trouble) say(""); return answer.status === 204 ? {} : await answer.json(); }
        if (answer.status === 409 && path !== "/api/state") return null;
        if (answer.status < 500 && answer.status !== 429) { location.replace("/"); return new Promise(() => {}); }
      } catch (error) { /* no network: again */ }
      if (trouble) say(trouble);
      await pause(wait);
    }
  }

  function load(key) {
    if (!images.has(key)) {
      const image = new Image();
      image.alt = settings.alt;
      image.draggable = false;
      image.src = `/image/${key}.png`;
      const decoded = image.decode().then(() => image);
      decoded.catch(() => images.delete(key));
      images.set(key, decoded);
    }
    return images.get(key);
  }

  async function loaded(key) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 10000)) {
      try { return await load(key); } catch (error) { say(settings.offlineImage); }
      await pause(wait);
      // The image may have been answered in another window meanwhile: then there is nothing to load.
      const now = await ask("/api/state", null, settings.offlineImage);
      if (now.image !== key) return null;
    }
  }

  function enable(on) {
    ready = on;
    for (const button of Object.values(choices)) button.setAttribute("aria-disabled", String(!on));
  }

  // The same size in CSS pixels for all images and readers, where the window allows it.
  function fit() {
    const others = [...root.children].filter((child) => child !== frame).reduce((sum, child) => sum + child.offsetHeight + 10, 16);
    const side = Math.min(Math.max(Number(settings.side), SMALLEST_PX), root.clientWidth - 16, Math.max(innerHeight - others, 240));
    frame.style.width = frame.style.height = `${Math.floor(side)}px`;
    place();
  }

  function place() {
    const side = frame.clientWidth;
    left = Math.min(0, Math.max(left, side * (1 - scale)));
    top = Math.min(0, Math.max(top, side * (1 - scale)));
    if (frame.firstChild) frame.firstChild.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    frame.classList.toggle("enlarged", scale > 1);
  }

  function zoom(factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
    const next = Math.min(Number(settings.zoom), Math.max(1, scale * factor));
    left = x - (x - left) * next / scale;
    top = y - (y - top) * next / scale;
    scale = next;
    largestScale = Math.max(largestScale, scale);
    place();
  }

  function screenNumbers() {
    return { width: innerWidth, height: innerHeight, dpr: devicePixelRatio, image_px: frame.clientWidth };
  }

  async function show(next) {
    state = next;
    if (state.phase === "end") { location.replace("/end"); return; }
    if (state.phase === "study" && state.position === 0 && Number(settings.practised) && !begun) await begin();
    enable(false);
    const label = state.phase === "practice" ? settings.practice : settings.study;
    const image = await loaded(state.image);
    if (!image) { show(await ask("/api/state", null, settings.offlineImage)); return; }
    scale = 1; left = top = 0; largestScale = 1;
    frame.replaceChildren(image);
    byId("progress").textContent = fill(label, state.position + 1, state.total);
    byId("bar").max = state.total;
    byId("bar").value = state.position;
    fit();
    await frames();
    shownAt = performance.now();
    hiddenMs = hiddenCount = blurs = 0;
    hiddenSince = document.hidden ? shownAt : null;
    enable(true);
    ask("/api/view", { image: state.image, ...screenNumbers() }, null);
    if (state.next) load(state.next).catch(() => {});
  }

  async function begin() {
    begun = true;
    root.hidden = true;
    byId("begin").hidden = false;
    byId("start").focus();
    await new Promise((done) => byId("start").addEventListener("click", done, { once: true }));
    byId("begin").hidden = true;
    root.hidden = false;
  }

  async function answer(choice, event, key) {
    const now = event.timeStamp || performance.now();
    if (!ready || event.repeat || now - shownAt < DEAD_MS) return;
    enable(false);
    if (hiddenSince !== null) { hiddenMs += now - hiddenSince; hiddenSince = now; }
    const body = {
      image: state.image, answer: choice, ms: now - shownAt, hidden_ms: Math.max(0, hiddenMs), hidden_count: hiddenCount, blurs,
      zoom: largestScale, key: key ? 1 : 0, ...screenNumbers(),
    };
    const slow = setTimeout(() => say(settings.saving), 700);
    const next = await ask("/api/answer", body, settings.offline);
    clearTimeout(slow);
    const current = next || await ask("/api/state", null, settings.offline);
    images.delete(state.image);
    await show(current);
    if (!next || !next.recorded) say(settings.elsewhere);
  }

  for (const [choice, button] of Object.entries(choices)) button.addEventListener("click", (event) => answer(choice, event, event.detail === 0));
  byId("larger").addEventListener("click", () => zoom(1.5));
  byId("smaller").addEventListener("click", () => zoom(1 / 1.5));
  byId("whole").addEventListener("click", () => zoom(0));
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = frame.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  frame.addEventListener("pointerdown", (event) => {
    if (scale > 1) { drag = { x: event.clientX - left, y: event.clientY - top }; frame.setPointerCapture(event.pointerId); }
  });
  frame.addEventListener("pointermove", (event) => { if (drag) { left = event.clientX - drag.x; top = event.clientY - drag.y; place(); } });
  for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, () => { drag = null; });
  frame.addEventListener("contextmenu", (event) => event.preventDefault());

  document.addEventListener("keydown", (event) => {
    if (root.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase(), step = frame.clientWidth / 8;
    if (key === "r" || key === "1") answer("real", event, true);
    else if (key === "s" || key === "2") answer("synthetic", event, true);
    else if (key === "+" || key === "=") zoom(1.5);
    else if (key === "-") zoom(1 / 1.5);
    else if (key === "0") zoom(0);
    else if (scale > 1 && key.startsWith("arrow")) {
      left += key === "arrowleft" ? step : key === "arrowright" ? -step : 0;
      top += key === "arrowup" ? step : key === "arrowdown" ? -step : 0;
      place();
      event.preventDefault();
    }
  });
  document.addEventListener("visibilitychange", () => {
    const now = performance.now();
    if (document.hidden) { hiddenSince = now; hiddenCount += 1; }
    else if (hiddenSince !== null) { hiddenMs += now - hiddenSince; hiddenSince = null; }
  });
  addEventListener("blur", () => { blurs += 1; });
  addEventListener("resize", fit);
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  const smallest = Number(settings.smallest);
  if (smallest && Math.min(screen.width, screen.height) < smallest) byId("small").hidden = false;
  else {
    root.hidden = false;
    say(settings.loading);
    ask("/api/state", null, settings.offlineImage).then(show);
  }
})();
