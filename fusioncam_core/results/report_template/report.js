"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const { images, stages } = JSON.parse(byId("index").textContent);
  const cards = images.map((_, place) => byId(`card-${place}`));
  const list = byId("cards");
  const view = byId("view");
  const stage = byId("stage");
  const names = Object.keys(stages);
  const PHOTOGRAPH = "";
  const has = Object.hasOwn; // a stage may be called "toString"
  let shown = images.map((_, place) => place);
  let open = null;

  const parsed = new Map();
  const picturesOf = (place) => {
    if (!parsed.has(place)) parsed.set(place, JSON.parse(byId(`pictures-${place}`).textContent));
    return parsed.get(place);
  };

  const image = (className, source, description) => {
    const made = new Image();
    made.className = className;
    made.decoding = "async";
    made.alt = description;
    made.src = source;
    return made;
  };

  // A map lies over the photograph, or over the part of it that the network saw.
  const draw = (holder, pictures, photograph, map, descriptions) => {
    const [width, height] = pictures.size;
    const made = [image("photograph", photograph, descriptions[0])];
    made[0].width = width;
    made[0].height = height;
    if (map) {
      const layer = image("map", map, descriptions[1]);
      const box = pictures.window || [0, 0, 1, 1];
      const parts = [layer];
      if (pictures.window) {
        const frame = document.createElement("span");
        frame.className = "frame";
        parts.push(frame);
      }
      for (const part of parts) {
        part.style.left = `${box[0] * 100}%`;
        part.style.top = `${box[1] * 100}%`;
        part.style.width = `${(box[2] - box[0]) * 100}%`;
        part.style.height = `${(box[3] - box[1]) * 100}%`;
      }
      made.push(...parts);
    }
    const sheet = document.createElement("span");
    sheet.className = height > width ? "sheet tall" : "sheet";
    sheet.style.aspectRatio = `${width} / ${height}`;
    sheet.append(...made);
    holder.replaceChildren(sheet);
  };

  // The target of a card: that of the chosen class, or the first.
  const chosen = (place) => {
    const label = byId("class").value;
    const found = images[place].targets.findIndex((target) => target.label === label);
    return label && found >= 0 ? found : 0;
  };

  const galleryStage = () => (stage ? stage.value : names[0]);

  const fill = (place) => {
    const card = cards[place];
    const number = chosen(place);
    const pictures = picturesOf(place);
    const maps = has(pictures.maps, galleryStage()) ? pictures.maps[galleryStage()] : null;
    draw(card.querySelector(".picture"), pictures, pictures.thumbnail, maps && maps[number], ["", ""]);
    card.dataset.drawn = `${number} ${galleryStage()}`;
  };

  const write = (place) => {
    const card = cards[place];
    const target = images[place].targets[chosen(place)];
    const name = galleryStage();
    const note = has(target.notes, name) ? target.notes[name] : "";
    card.querySelector(".label").textContent = target.label;
    card.querySelector(".value").textContent = target.value;
    card.querySelector(".note").textContent = has(images[place].stages, name) ? note : "has no such stage";
    card.classList.toggle("muted", target.muted.includes(name));
  };

  // Only what is near the window is decoded.
  const near = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const place = Number(entry.target.id.slice("card-".length));
        if (entry.isIntersecting) near.add(place);
        else near.delete(place);
        if (entry.isIntersecting && cards[place].dataset.drawn !== `${chosen(place)} ${galleryStage()}`) fill(place);
      }
    },
    { rootMargin: "600px" },
  );

  const redraw = () => {
    images.forEach((_, place) => {
      write(place);
      if (near.has(place) && cards[place].dataset.drawn !== `${chosen(place)} ${galleryStage()}`) fill(place);
    });
  };

  const least = () => {
    const value = byId("least").valueAsNumber;
    return Number.isNaN(value) ? null : value;
  };

  const fits = (place) => {
    const { name, targets } = images[place];
    const label = byId("class").value;
    if (label && !targets.some((target) => target.label === label)) return false;
    const words = byId("words").value.trim().toLowerCase();
    const target = targets[chosen(place)];
    const text = [name, ...targets.map((each) => each.label)].join("\n").toLowerCase();
    if (words && !text.includes(words)) return false;
    if (least() !== null && !(target.p !== null && target.p >= least())) return false;
    const support = byId("support") ? byId("support").value : "";
    if (support && (target.c === null || target.c > 0 !== (support === "yes"))) return false;
    return true;
  };

  const compareText = (first, second) => first.localeCompare(second, undefined, { numeric: true });

  // What was not measured comes last, whichever way.
  const compareNumber = (first, second, sign) => {
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (first - second);
  };

  const inOrder = (places) => {
    const order = byId("order").value;
    const sign = order.startsWith("-") ? -1 : 1;
    const key = order.replace("-", "");
    const target = (place) => images[place].targets[chosen(place)];
    const compare = {
      place: () => 0,
      name: (first, second) => compareText(images[first].name, images[second].name),
      class: (first, second) => compareText(target(first).label, target(second).label),
      p: (first, second) => compareNumber(target(first).p, target(second).p, sign),
      c: (first, second) => compareNumber(target(first).c, target(second).c, sign),
    }[key];
    return places.sort((first, second) => compare(first, second) || first - second);
  };

  const arrange = () => {
    shown = inOrder(images.map((_, place) => place).filter(fits));
    const kept = new Set(shown);
    cards.forEach((card, place) => {
      card.hidden = !kept.has(place);
    });
    list.append(...shown.map((place) => cards[place]));
    byId("none").hidden = shown.length > 0;
    byId("count").textContent = `${shown.length} of ${images.length} shown`;
    redraw();
  };

  const strengthen = (value) => {
    document.documentElement.style.setProperty("--strength", String(value / 100));
    for (const id of ["strength", "view-strength"]) {
      byId(id).value = value;
      byId(`${id}-text`).textContent = `${value} %`;
    }
  };

  const inGrey = (on) => {
    document.documentElement.classList.toggle("grey", on);
    byId("grey").checked = on;
    byId("view-grey").checked = on;
  };

  const options = (select, entries, value) => {
    const made = entries.map(([own, text]) => {
      const option = document.createElement("option");
      option.value = own;
      option.textContent = text;
      return option;
    });
    select.replaceChildren(...made);
    if (entries.some(([own]) => own === value)) select.value = value;
  };

  const SIDES = ["first", "second"];

  const pane = (side) => {
    const { name, targets } = images[open];
    const pictures = picturesOf(open);
    const own = byId(`stage-${side}`).value;
    const number = Number(byId(`target-${side}`).value);
    const target = targets[number];
    const title = images[open].stages[own];
    const map = own === PHOTOGRAPH ? null : pictures.maps[own][number];
    const holder = byId(`pane-${side}`);
    draw(holder.querySelector(".picture"), pictures, pictures.photograph, map, [
      `Photograph ${name}`,
      `${title}, map for ${target.label}`,
    ]);
    const note = own !== PHOTOGRAPH && has(target.notes, own) ? target.notes[own] : "";
    const what = own === PHOTOGRAPH ? "Photograph alone" : title;
    holder.querySelector(".said").textContent = [`${what}: ${target.label}, ${target.value}`, note].filter(Boolean).join("; ");
    holder.querySelector(".meaning").textContent = own !== PHOTOGRAPH && has(target.meanings, own) ? target.meanings[own] : "";
    holder.classList.toggle("muted", own !== PHOTOGRAPH && target.muted.includes(own));
  };

  const other = (entries, value) => (entries.find(([own]) => own !== value) || entries[0])[0];

  const show = (place) => {
    open = place;
    const { name, targets } = images[place];
    const maps = Object.entries(images[place].stages);
    const classes = targets.map((target, number) => [String(number), target.label]);
    const stageNow = has(images[place].stages, galleryStage()) ? galleryStage() : maps[maps.length - 1][0];
    const classNow = String(chosen(place));
    options(byId("stage-first"), [...maps, [PHOTOGRAPH, "Photograph alone"]], stageNow);
    options(byId("target-first"), classes, classNow);
    // The second map is of another class where there is one, else of another stage.
    options(byId("stage-second"), [...maps, [PHOTOGRAPH, "Photograph alone"]],
      classes.length > 1 ? stageNow : other([...maps, [PHOTOGRAPH, ""]], stageNow));
    options(byId("target-second"), classes, classes.length > 1 ? other(classes, classNow) : classNow);
    byId("view-title").textContent = name;
    byId("view-numbers").replaceChildren(cards[place].querySelector(".tables").cloneNode(true));
    byId("previous").disabled = shown.indexOf(place) <= 0;
    byId("next").disabled = shown.indexOf(place) >= shown.length - 1;
    SIDES.forEach(pane);
    if (!view.open) view.showModal();
    view.scrollTop = 0;
  };

  const step = (by) => {
    const place = shown[shown.indexOf(open) + by];
    if (place === undefined) return;
    show(place);
    if (document.activeElement === document.body || document.activeElement.disabled) byId("view-title").focus();
  };

  for (const id of ["strength", "view-strength"]) byId(id).addEventListener("input", (event) => strengthen(event.target.value));
  for (const id of ["grey", "view-grey"]) byId(id).addEventListener("change", (event) => inGrey(event.target.checked));
  for (const id of ["words", "class", "least", "support", "order"]) {
    if (byId(id)) byId(id).addEventListener("input", arrange);
  }
  if (stage) stage.addEventListener("input", redraw);
  byId("all").addEventListener("click", () => {
    for (const id of ["words", "class", "least", "support"]) if (byId(id)) byId(id).value = "";
    arrange();
    byId("words").focus();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (button) show(Number(button.dataset.place));
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => view.close());
  view.addEventListener("close", () => {
    const button = cards[open] && cards[open].querySelector("button.open");
    if (button) button.focus();
  });
  byId("compare").addEventListener("click", () => {
    const both = byId("pane-second").hidden;
    byId("pane-second").hidden = !both;
    byId("panes").classList.toggle("both", both);
    byId("compare").setAttribute("aria-pressed", String(both));
  });
  for (const side of SIDES) {
    for (const what of ["stage", "target"]) byId(`${what}-${side}`).addEventListener("input", () => pane(side));
  }

  // Browsers keep what was typed over a reload.
  for (const id of ["words", "least"]) byId(id).value = "";
  for (const id of ["class", "support", "order"]) if (byId(id)) byId(id).selectedIndex = 0;
  strengthen(byId("strength").dataset.start);
  inGrey(false);
  arrange();
  for (const card of cards) observer.observe(card);
})();
