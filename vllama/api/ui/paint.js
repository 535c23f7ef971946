// Canvases: sharp on every screen, in the colours of the scheme in force.

let colours = null;

/** The scheme's colours by name, read from the style sheet once for each scheme. */
export function palette() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "muted", "line", "surface", "sunken", "awake", "rising", "asleep", "leaving", "failed", "others", "accent"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    colours.font = style.fontFamily;
  }
  return colours;
}

export function schemeChanged() {
  colours = null;
  hatches.clear();
}

/** A cleared context whose unit is a CSS pixel, its width and height; null while the canvas cannot be seen. */
export function fresh(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const scale = Math.min(devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  return { c, width, height };
}

const hatches = new Map();

/** Diagonal lines in a colour over the surface: what is told apart without colour. */
export function hatch(colour) {
  if (!hatches.has(colour)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 8;
    const c = tile.getContext("2d");
    c.globalAlpha = 0.3;
    c.fillStyle = colour;
    c.fillRect(0, 0, 8, 8);
    c.globalAlpha = 1;
    c.strokeStyle = colour;
    c.lineWidth = 2.4;
    for (const x of [-8, 0, 8]) {
      c.beginPath();
      c.moveTo(x, 8);
      c.lineTo(x + 8, 0);
      c.stroke();
    }
    hatches.set(colour, c.createPattern(tile, "repeat"));
  }
  return hatches.get(colour);
}

/** Times at which a vertical line helps, and what each is called, for a window that ends now. */
export function ticks(from, to, width) {
  const step = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800].find((s) => ((to - from) / s) * 76 < width) ?? 3600;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return { step, found };
}
