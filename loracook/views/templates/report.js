(() => {
  const filter = document.querySelector(".filter");
  if (!filter) return;
  const rows = [...document.querySelectorAll("[data-outcome]")];
  const [search, set, shown] = ["input", "select", "output"].map((name) => filter.querySelector(name));
  const buttons = [...filter.querySelectorAll("button")];
  let outcome = "all";
  const apply = () => {
    const words = search.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (outcome === "all" || row.dataset.outcome === outcome || (outcome === "cut" && row.dataset.cut))
        && (!set || set.value === "*" || row.dataset.set === set.value)
        && row.textContent.toLowerCase().includes(words);
      row.hidden = !fits;
      count += fits;
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === outcome));
    shown.textContent = `${count} of ${rows.length} shown`;
  };
  for (const button of buttons) button.addEventListener("click", () => { outcome = button.value; apply(); });
  search.addEventListener("input", apply);
  if (set) set.addEventListener("change", apply);
  filter.hidden = false;
  apply();
})();
