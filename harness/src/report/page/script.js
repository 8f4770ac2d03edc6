// Filters. Without scripts, the page shows everything.
(() => {
  const form = document.querySelector('form.filters');
  const fields = [...form.querySelectorAll('[data-filter]')];
  const cells = [...document.querySelectorAll('.cell')];
  const links = new Map();
  for (const link of document.querySelectorAll('.matrix a.word')) links.set(link.getAttribute('href').slice(1), link);
  const apply = () => {
    const want = Object.fromEntries(fields.map((f) => [f.dataset.filter, f.type === 'checkbox' ? f.checked : f.value]));
    const words = want.text.toLowerCase().split(/\s+/).filter((word) => word);
    let shown = 0;
    for (const cell of cells) {
      const row = cell.closest('.row');
      const text = words.length ? (row.querySelector('h3').textContent + ' ' + cell.textContent).toLowerCase() : '';
      const fits = (!want.kernel || cell.dataset.kernel === want.kernel)
        && (!want.family || row.dataset.family === want.family)
        && (!want.verdict || cell.dataset.verdict === want.verdict)
        && (!want.unexpected || cell.hasAttribute('data-unexpected'))
        && words.every((word) => text.includes(word));
      cell.hidden = !fits;
      shown += fits ? 1 : 0;
      const link = links.get(cell.id);
      if (link) link.hidden = !fits;
    }
    for (const row of document.querySelectorAll('.row')) row.hidden = !row.querySelector('.cell:not([hidden])');
    for (const row of document.querySelectorAll('.matrix tbody tr:not(.family)')) row.hidden = !row.querySelector('a.word:not([hidden])');
    for (const body of document.querySelectorAll('.matrix tbody')) body.hidden = !body.querySelector('tr:not(.family):not([hidden])');
    form.querySelector('.count').textContent = shown === cells.length ? '' : shown + ' of ' + cells.length + ' cells';
  };
  form.hidden = false;
  form.addEventListener('input', apply);
  form.addEventListener('submit', (event) => event.preventDefault());
})();
