// Interactive views of a report. Nothing is decoded before a reader opens a view, and a view that
// is closed gives its memory back. The page works without this script: pictures stay below.
(() => {
  'use strict';

  const settings = JSON.parse(document.getElementById('viewer-settings').textContent);
  // "neurolesion-tools view" serves the files beside the page; from disk only the page is there.
  const served = location.protocol.startsWith('http');
  const MINUS = '\u2212';
  const SLICES = { planes: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };

  // Depth, azimuth and elevation of the plane before which the 3D picture shows the map alone.
  const CUT = [0, 200, 25];
  const NO_CUT = [2, 0, 0];

  const number = (value, digits) => {
    const text = digits === undefined ? String(Number(value.toPrecision(3))) : value.toFixed(digits);
    return text.replace('-', MINUS);
  };
  const withUnit = (text, unit) => (unit ? `${text} ${unit}` : text);

  const bytesOf = (id) => {
    const text = atob(document.getElementById(id).textContent);
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  };

  let library = null;
  const loadLibrary = async () => {
    const unpacked = new Blob([bytesOf('viewer-program')]).stream()
      .pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    return window.niivue;
  };

  const multiply = (left, right) =>
    left.map((row) => [0, 1, 2, 3].map((column) =>
      row.reduce((sum, value, index) => sum + value * right[index][column], 0)));

  /** One view: a canvas, its controls, and what they show. */
  class View {
    constructor(root) {
      this.root = root;
      this.name = root.dataset.scene;
      this.layers = settings.scenes[this.name];
      this.turn = 0;
      this.part = (role) => root.querySelector(`[data-part="${role}"]`);
      this.fill('layer', this.layers.map((layer) => layer.title));
      this.listen();
    }

    get layer() { return this.layers[Number(this.part('layer').value)]; }
    get below() { return this.layer.below[Number(this.part('image').value)]; }
    get map() { return settings.volumes[this.layer.key]; }

    fill(part, titles) {
      const options = titles.map((title, index) => new Option(title, String(index)));
      this.part(part).replaceChildren(...options);
      this.part(part).disabled = titles.length < 2;
    }

    listen() {
      const on = (part, event, act) => this.part(part).addEventListener(event, act);
      on('layer', 'change', () => this.attempt(() => this.chooseLayer()));
      on('image', 'change', () => this.attempt(() => this.load(false)));
      on('colors', 'change', () => this.paint());
      on('opacity', 'input', () => this.paint());
      on('threshold', 'input', () => this.paint());
      on('shown', 'change', () => this.paint());
      on('slices', 'change', () => this.arrange());
      on('sides', 'change', () => this.arrange());
      on('cut', 'change', () => this.arrange());
      on('focus', 'click', () => this.goTo(this.layer.focus));
      this.root.addEventListener('toggle', () => {
        if (this.root.open) this.attempt(() => this.open());
        else this.close();
      });
    }

    async attempt(act) {
      try {
        await act();
      } catch (error) {
        this.say(`The view cannot be shown (${error.message}). The pictures show the same.`);
      }
    }

    async open() {
      this.say('Loading …');
      library = library || loadLibrary();
      const { Niivue } = await library;
      this.canvas = this.part('canvas');
      this.canvas.addEventListener('keydown', (event) => this.onKey(event));
      this.niivue = new Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.34, 0.71, 0.91, 1], crosshairWidth: 0.5,
        dragAndDropEnabled: false, scrollRequiresFocus: true, sagittalNoseLeft: true,
        multiplanarShowRender: 1, showAllOrientationMarkers: true, fontColor: [0.91, 0.91, 0.91, 1],
        clipPlaneHotKey: '', cycleClipPlaneHotKey: '', viewModeHotKey: '', logLevel: 'error',
        clipPlaneColor: [0, 0, 0, 0], fontMinPx: 14, loadingText: '', multiplanarEqualSize: true,
      });
      this.niivue.onLocationChange = (place) => this.read(place);
      await this.niivue.attachToCanvas(this.canvas);
      this.arrange();
      await this.chooseLayer();
    }

    close() {
      this.turn += 1;
      if (!this.niivue) return;
      const context = this.niivue.gl;
      this.niivue.cleanup();
      this.niivue = null;
      const fresh = this.canvas.cloneNode();
      this.canvas.replaceWith(fresh);
      context?.getExtension('WEBGL_lose_context')?.loseContext();
    }

    async chooseLayer() {
      this.fill('image', this.layer.below.map((below) => settings.volumes[below.key].title));
      const { map } = this;
      const colored = Boolean(map && map.role === 'map');
      if (colored) {
        const threshold = this.part('threshold');
        threshold.min = map.low;
        threshold.max = map.high;
        threshold.step = (map.high - map.low) / 100;
        threshold.value = map.low;
        this.part('colors').value = map.cmap;
      }
      this.part('threshold').disabled = !colored;
      this.part('colors').disabled = !colored;
      for (const part of ['opacity', 'shown', 'focus']) this.part(part).disabled = !map;
      await this.load(true);
    }

    /** Bytes of a volume: the file where it is served, else what the page holds. */
    async fetch(key) {
      const about = settings.volumes[key];
      if (served) {
        const answer = await fetch(about.href).catch(() => null);
        if (answer?.ok) return { bytes: await answer.arrayBuffer(), whole: true };
      }
      if (!about.zooms) throw new Error('the volumes did not fit into this page');
      return { bytes: bytesOf(`volume-${key}`).buffer, whole: false };
    }

    async volume(key, matrix) {
      const { NVImage } = await library;
      const about = settings.volumes[key];
      const { bytes, whole } = await this.fetch(key);
      const image = await NVImage.new(bytes, `${key}.nii.gz`, 'gray', 1.0, null, about.low, about.high);
      image.cal_min = about.low;
      image.cal_max = about.high;
      if (matrix) image.setAffine(multiply(matrix, image.getAffine()));
      return { image, about, whole };
    }

    async load(moves) {
      const turn = (this.turn += 1);
      const keep = this.place;
      const wanted = [[this.below.key, this.below.matrix]];
      if (this.layer.key) wanted.push([this.layer.key, null]);
      this.say('Loading …');
      const loaded = await Promise.all(wanted.map(([key, matrix]) => this.volume(key, matrix)));
      if (turn !== this.turn || !this.niivue) return;
      this.loaded = loaded;
      this.niivue.volumes = [];
      for (const { image } of loaded) this.niivue.addVolume(image);
      this.paint();
      this.note(loaded);
      this.goTo(moves || !keep ? this.layer.focus : keep);
      this.root.dataset.ready = String(turn);
    }

    paint() {
      const [, over] = this.loaded || [];
      this.legend(over);
      if (!over || !this.niivue) return;
      const { about, image } = over;
      const opacity = Number(this.part('opacity').value) / 100;
      this.part('opacity-text').textContent = `${Math.round(opacity * 100)} %`;
      if (about.role === 'map') this.color(image, about);
      else this.label(image, about);
      image.opacity = this.part('shown').checked ? opacity : 0;
      this.niivue.updateGLVolume();
    }

    /** Colours of a map, clear below the threshold and fading in as in the pictures. */
    color(image, about) {
      const digits = settings.colors[this.part('colors').value];
      const threshold = Number(this.part('threshold').value);
      const [clear, full] = settings.fade;
      const table = { R: [], G: [], B: [], A: [], I: [] };
      for (let index = 0; index < 256; index += 1) {
        const share = index / 255;
        const value = about.low + share * (about.high - about.low);
        const faded = Math.min(1, Math.max(0, (share - clear) / (full - clear)));
        table.R.push(parseInt(digits.slice(6 * index, 6 * index + 2), 16));
        table.G.push(parseInt(digits.slice(6 * index + 2, 6 * index + 4), 16));
        table.B.push(parseInt(digits.slice(6 * index + 4, 6 * index + 6), 16));
        table.A.push(value < threshold ? 0 : Math.round(255 * faded));
        table.I.push(index);
      }
      this.niivue.addColormap(`${this.name}-colors`, table);
      image.colormap = `${this.name}-colors`;
      this.part('threshold-text').textContent = withUnit(number(threshold), about.unit);
    }

    label(image, about) {
      const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [''] };
      for (const [value, name, color] of about.labels) {
        table.R.push(parseInt(color.slice(1, 3), 16));
        table.G.push(parseInt(color.slice(3, 5), 16));
        table.B.push(parseInt(color.slice(5, 7), 16));
        table.A.push(255);
        table.I.push(value);
        table.labels.push(name);
      }
      image.setColormapLabel(table);
      this.part('threshold-text').textContent = '';
    }

    legend(over) {
      const box = this.part('legend');
      box.replaceChildren();
      if (!over) return;
      const { about } = over;
      const add = (tag, text, style) => {
        const element = document.createElement(tag);
        element.textContent = text;
        if (style) Object.assign(element.style, style);
        box.append(element);
      };
      if (about.role === 'labels') {
        for (const [, name, color] of about.labels) {
          add('i', '', { background: color });
          add('span', name);
        }
        if (!about.labels.length) add('span', 'Nothing was found: no voxel has a label.');
        return;
      }
      const digits = settings.colors[this.part('colors').value];
      const stops = Array.from({ length: 17 }, (_, index) =>
        `#${digits.slice(6 * Math.min(255, index * 16), 6 * Math.min(255, index * 16) + 6)}`);
      add('span', number(about.low));
      add('b', '', { background: `linear-gradient(to right, ${stops.join(',')})` });
      add('span', withUnit(number(about.high), about.unit));
    }

    arrange() {
      if (!this.niivue) return;
      const radiological = this.part('sides').value === 'radiological';
      this.niivue.setRadiologicalConvention(radiological);
      this.niivue.setSliceType(SLICES[this.part('slices').value]);
      this.niivue.setClipPlane(this.part('cut').checked ? CUT : NO_CUT);
      this.part('convention').textContent = radiological
        ? 'Radiological convention: the patient’s right is on the left. Sagittal: the front is on the left.'
        : 'Neurological convention: the patient’s right is on the right. Sagittal: the front is on the left.';
    }

    goTo(place) {
      if (!this.niivue?.volumes.length) return;
      this.niivue.scene.crosshairPos = this.niivue.mm2frac(place);
      this.niivue.drawScene();
      this.niivue.createOnLocationChange();
    }

    onKey(event) {
      const towardsRight = this.part('sides').value === 'radiological' ? -1 : 1;
      const steps = {
        ArrowLeft: [-towardsRight, 0, 0], ArrowRight: [towardsRight, 0, 0],
        ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
      }[event.key];
      if (!steps || !this.niivue?.volumes.length) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      this.niivue.moveCrosshairInVox(...steps);
    }

    read(place) {
      this.place = Array.from(place.mm).slice(0, 3);
      const [x, y, z] = this.place.map((value) => number(value, 1));
      const values = place.values.map(({ value }, index) => this.spell(this.loaded[index], value));
      this.say([`x ${x}, y ${y}, z ${z} mm`, ...values].join(' · '));
    }

    spell({ about, whole }, value) {
      if (about.role === 'labels') {
        const found = about.labels.find(([index]) => index === Math.round(value));
        return `${about.title}: ${found ? found[1] : 'none'}`;
      }
      const clip = whole ? null : about.clip;
      let sign = '';
      if (clip && value >= clip[1]) sign = '≥ ';
      if (clip && value <= clip[0] && clip[0] !== 0) sign = '≤ ';
      return `${about.title}: ${sign}${withUnit(number(value), about.unit)}`;
    }

    say(text) { this.part('reading').textContent = text; }

    note(loaded) {
      const coarse = loaded.filter(({ about, whole }) => about.coarse && !whole)
        .map(({ about }) => `${about.title} ${about.zooms.map((zoom) => number(zoom)).join(' × ')} mm`);
      this.part('note').textContent = coarse.length
        ? `Embedded in this page with larger voxels: ${coarse.join('; ')}. `
          + 'neurolesion-tools view OUTPUT_DIR shows the full resolution.'
        : 'Every voxel of the files is shown.';
    }
  }

  for (const root of document.querySelectorAll('details.viewer')) {
    root.hidden = false;
    new View(root);
  }
})();
