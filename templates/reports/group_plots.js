// Draws the plots of the group's page when they come into view, in the colours of the page.
(() => {
  'use strict';

  const AHEAD = '500px';
  const { rows, figures } = JSON.parse(document.getElementById('plot-data').textContent);
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const drawn = new Set();
  const chosen = new Map();

  const said = document.createElement('p');
  said.className = 'unseen';
  said.setAttribute('aria-live', 'polite');
  document.body.append(said);

  const styled = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Replaces variables of the style by what they stand for now, as plotly knows none.
  const coloured = (value) => {
    if (typeof value === 'string') {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? styled(name[1]) : value;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part)]));
    }
    return value;
  };

  const template = () => {
    const axis = {
      gridcolor: styled('--grid'), zerolinecolor: styled('--line'), linecolor: styled('--line'),
      automargin: true,
    };
    return {
      layout: {
        paper_bgcolor: styled('--card'),
        plot_bgcolor: styled('--card'),
        font: { color: styled('--soft'), size: 12.5, family: getComputedStyle(document.body).fontFamily },
        colorway: ['--c1', '--c2', '--c3', '--c4', '--c5', '--c0'].map(styled),
        margin: { l: 56, r: 12, t: 28, b: 34 },
        hoverlabel: { bgcolor: styled('--page'), bordercolor: styled('--line'), font: { color: styled('--ink') } },
        legend: { orientation: 'h', x: 0, y: 1, yanchor: 'bottom' },
        modebar: { bgcolor: 'rgba(0,0,0,0)', color: styled('--soft'), activecolor: styled('--accent') },
        xaxis: axis,
        yaxis: axis,
      },
    };
  };

  const violin = (box, traces) => {
    const points = traces.find(
      (trace) => trace.meta?.part === 'points' && trace.meta.group === box.meta.group
    );
    return {
      type: 'violin', name: box.name, x0: box.meta.group, y: points.y, points: false, width: box.width,
      hoverinfo: 'skip', line: box.line, fillcolor: box.fillcolor, meanline: { visible: false },
      box: { visible: true, width: 0.15 }, spanmode: 'hard',
    };
  };

  const figureOf = (plot) => {
    const { data, layout } = coloured(figures[plot.parentElement.id]);
    const mode = chosen.get(plot.closest('section').id);
    const traces = data
      .filter((trace) => mode !== 'points' || trace.meta?.part !== 'box')
      .map((trace) => (mode === 'violin' && trace.meta?.part === 'box' ? violin(trace, data) : trace))
      .map((trace) => ({
        ...trace,
        ...(trace.customdata && {
          customdata: trace.customdata.map((item) => (Number.isInteger(item) ? rows[item] : item)),
        }),
      }));
    return [traces, { ...layout, template: template(), height: Number(plot.dataset.height) }];
  };

  const follow = (href, apart) => {
    const url = new URL(href, document.baseURI);
    if (!href || url.protocol !== window.location.protocol) return;
    if (apart) window.open(url, '_blank', 'noopener');
    else window.location.assign(url);
  };

  // With the arrow keys from point to point, with Enter to the subject.
  const walk = (plot) => {
    let here = -1;
    const stops = () =>
      plot.data.flatMap((trace, curveNumber) =>
        trace.customdata
          ? trace.y.map((y, pointNumber) => ({
            y, curveNumber, pointNumber, data: trace.customdata[pointNumber], name: trace.name,
          }))
          : []
      ).filter((stop) => Array.isArray(stop.data) && stop.y !== null);
    plot.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const points = stops();
      if (points.length === 0) return;
      if (step) {
        event.preventDefault();
        here = (here + step + points.length) % points.length;
        const { curveNumber, pointNumber, data, y, name } = points[here];
        window.Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]);
        said.textContent = `${data[0]}, ${name}: ${y}`;
      } else if (event.key === 'Enter' && here >= 0) {
        follow(points[here].data[1], event.ctrlKey || event.metaKey);
      }
    });
  };

  const draw = (plot) => {
    const config = {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
      toImageButtonOptions: { format: 'svg', filename: plot.parentElement.id },
    };
    window.Plotly.newPlot(plot, ...figureOf(plot), config);
    drawn.add(plot);
    plot.parentElement.classList.add('drawn');
    plot.on('plotly_click', ({ points, event }) => {
      const data = points[0].customdata;
      if (Array.isArray(data)) follow(data[1], event.ctrlKey || event.metaKey);
    });
    plot.on('plotly_hover', ({ points }) => {
      plot.classList.toggle('leads', Boolean(points[0].customdata?.[1]));
    });
    plot.on('plotly_unhover', () => plot.classList.remove('leads'));
    plot.tabIndex = 0;
    plot.setAttribute('role', 'application');
    plot.ariaLabel += ' Arrow keys go through the points, Enter opens the page of the subject.';
    walk(plot);
  };

  const redraw = (plots) => plots.forEach((plot) => window.Plotly.react(plot, ...figureOf(plot)));

  const choice = (section, modes) => {
    const field = document.createElement('fieldset');
    field.className = 'choice';
    const legend = document.createElement('legend');
    legend.textContent = 'Plots show';
    field.append(legend);
    modes.forEach((mode, index) => {
      const label = document.createElement('label');
      const input = document.createElement('input');
      Object.assign(input, { type: 'radio', name: `${section.id}-mode`, value: mode, checked: index === 0 });
      label.append(input, ` ${mode}`);
      field.append(label);
    });
    field.addEventListener('change', (event) => {
      chosen.set(section.id, event.target.value);
      redraw([...drawn].filter((plot) => section.contains(plot)));
    });
    section.querySelector('.blocks').before(field);
  };

  const plots = [...document.querySelectorAll('.plot')];
  for (const section of document.querySelectorAll('section')) {
    const first = section.querySelector('.plot[data-modes]');
    if (first) choice(section, first.dataset.modes.split(' '));
  }
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        watch.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: AHEAD });
  plots.forEach((plot) => watch.observe(plot));
  dark.addEventListener('change', () => redraw([...drawn]));
  // Paper has colours of its own; plots of the rooms have a drawing for it.
  window.matchMedia('print').addEventListener('change', ({ matches }) => {
    const printed = plots.filter((plot) => !plot.parentElement.querySelector('.static svg'));
    redraw(printed.filter((plot) => drawn.has(plot)));
    if (!matches) return;
    for (const plot of printed.filter((other) => !drawn.has(other))) {
      watch.unobserve(plot);
      draw(plot);
    }
  });
})();
