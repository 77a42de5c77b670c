// Makes tables sort, filter and turn pages; without it they stand there whole.
(() => {
  'use strict';

  const PAGE = 100;
  const FEWEST_FILTERED = 8;
  const collator = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });
  const BOUND = /^(<=|>=|<|>|=)?\s*([-−+]?[\d.,]+(?:e[-+]?\d+)?)$/i;
  const RANGE = /^(\S+)\s*\.\.\s*(\S+)$/;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const toNumber = (text) => Number(text.replaceAll(',', '').replace('−', '-'));
  const textOf = (row, column) => row.cells[column].textContent;
  const numberOf = (row, column) => {
    const { v } = row.cells[column].dataset;
    const text = v ?? textOf(row, column);
    return /\d/.test(text) ? toNumber(text) : NaN;
  };

  // What a filter of numbers asks for; undefined where it cannot be read.
  const readBounds = (text) => {
    const range = RANGE.exec(text);
    if (range) {
      const [low, high] = [toNumber(range[1]), toNumber(range[2])];
      return Number.isNaN(low + high) ? undefined : (value) => value >= low && value <= high;
    }
    const found = BOUND.exec(text);
    const bound = found ? toNumber(found[2]) : NaN;
    if (Number.isNaN(bound)) return undefined;
    const tests = {
      '<': (value) => value < bound,
      '>': (value) => value > bound,
      '<=': (value) => value <= bound,
      '>=': (value) => value >= bound,
      '=': (value) => value === bound,
    };
    return tests[found[1] ?? '='];
  };

  const enhance = (table, number) => {
    const body = table.tBodies[0];
    const all = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    const numeric = headings.map((heading) => heading.classList.contains('num'));
    const titles = headings.map((heading) => heading.textContent);
    const filters = new Map();
    const state = { rows: all, page: 0, column: -1, down: false };
    const status = make('p', { className: 'statement', role: 'status' });
    const bar = make('div', { className: 'tools' }, status);

    const show = () => {
      const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
      state.page = Math.min(state.page, pages - 1);
      const first = state.page * PAGE;
      const part = state.rows.slice(first, first + PAGE);
      body.replaceChildren(...part);
      const of = state.rows.length === all.length ? `${all.length} rows` : `${state.rows.length} of ${all.length} rows`;
      status.textContent = pages > 1 ? `Rows ${first + 1}–${first + part.length}; ${of}` : of;
      back.disabled = state.page === 0;
      next.disabled = state.page === pages - 1;
      clear.hidden = filters.size === 0;
    };
    const turn = (step) => () => {
      state.page += step;
      show();
    };
    const back = make('button', { type: 'button', textContent: 'Previous', onclick: turn(-1) });
    const next = make('button', { type: 'button', textContent: 'Next', onclick: turn(1) });
    const clear = make('button', { type: 'button', textContent: 'Clear filters', hidden: true });
    bar.append(...(all.length > PAGE ? [back, next] : []), clear);

    const arrange = () => {
      const tests = [...filters.values()];
      state.rows = all.filter((row) => tests.every((test) => test(row)));
      const { column, down } = state;
      if (column >= 0) {
        const sign = down ? -1 : 1;
        const keyed = state.rows.map((row) => [row, numeric[column] ? numberOf(row, column) : textOf(row, column)]);
        // What is missing comes last in either order.
        keyed.sort(([, one], [, two]) => {
          if (!numeric[column]) return sign * collator.compare(one, two);
          return Number.isNaN(one) - Number.isNaN(two) || sign * (one - two) || 0;
        });
        state.rows = keyed.map(([row]) => row);
      }
      state.page = 0;
      show();
    };

    headings.forEach((heading, column) => {
      const button = make('button', { type: 'button', className: 'sorts' }, ...heading.childNodes);
      button.addEventListener('click', () => {
        state.down = state.column === column && !state.down;
        state.column = column;
        headings.forEach((other) => other.removeAttribute('aria-sort'));
        heading.setAttribute('aria-sort', state.down ? 'descending' : 'ascending');
        arrange();
      });
      heading.append(button);
    });

    const filter = (column, input) => () => {
      const text = input.value.trim().toLowerCase();
      filters.delete(column);
      input.removeAttribute('aria-invalid');
      if (text && numeric[column]) {
        const test = readBounds(text);
        if (test) filters.set(column, (row) => test(numberOf(row, column)));
        else input.setAttribute('aria-invalid', 'true');
      } else if (text) {
        const words = text.split(/\s+/);
        filters.set(column, (row) => {
          const cell = textOf(row, column).toLowerCase();
          return words.every((word) => cell.includes(word));
        });
      }
      arrange();
    };
    if (all.length >= FEWEST_FILTERED) {
      const inputs = titles.map((title, column) => {
        const input = make('input', {
          type: 'search',
          placeholder: numeric[column] ? '> 3' : 'filter',
          title: numeric[column] ? 'For example > 3, <= 10, 2..5 or 7' : 'Words that the cell holds',
          ariaLabel: `Filter ${title}`,
        });
        input.addEventListener('input', filter(column, input));
        return input;
      });
      table.tHead.append(make('tr', { className: 'filters' }, ...inputs.map((input) => make('td', {}, input))));
      clear.addEventListener('click', () => {
        for (const input of inputs) {
          input.value = '';
          input.removeAttribute('aria-invalid');
        }
        filters.clear();
        arrange();
      });
    }

    if (table.dataset.views) {
      table.id ||= `table-${number}`;
      const style = make('style');
      const views = Object.entries(JSON.parse(table.dataset.views));
      const select = make('select', {}, ...views.map(([name], index) => make('option', { value: index, textContent: name })));
      select.addEventListener('change', () => {
        const kept = new Set(views[select.value][1]);
        const hidden = titles.map((_, column) => column).filter((column) => !kept.has(column));
        style.textContent = hidden.length
          ? `${hidden.map((column) => `#${table.id} tr > :nth-child(${column + 1})`).join()} { display: none; }`
          : '';
      });
      document.head.append(style);
      bar.prepend(make('label', {}, 'Columns ', select));
    }
    const frame = table.closest('.scroll');
    if (all.length >= FEWEST_FILTERED || table.dataset.views) frame.before(bar);
    frame.classList.add('tall');
    show();
  };

  // The menu may take several lines, and what a link leads to must not lie under it.
  const menu = document.querySelector('nav.jump');
  const clearMenu = () => {
    document.documentElement.style.scrollPaddingTop = `${menu.offsetHeight + 12}px`;
  };
  window.addEventListener('resize', clearMenu);
  clearMenu();
  [...document.querySelectorAll('table.data')]
    .filter((table) => table.tBodies[0].rows.length > 1)
    .forEach(enhance);
})();
