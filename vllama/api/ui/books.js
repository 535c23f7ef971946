// The broker's books as the journal tells them: who holds how much of which device, now and in the last hour.

const SAMPLES_MAX = 3000;
const KEEP_S = 3600;
const TOGETHER_S = 0.05; // records of one moment make one sample

/** What a device's memory is divided into, from the bottom of the bar up. */
export const KINDS = [
  { key: "awake", label: "Awake" },
  { key: "changing", label: "Changing" },
  { key: "asleep", label: "Asleep" },
  { key: "others", label: "Others" },
];

/** One more sample of a series, in the place of one of the same moment. */
export function add(series, sample) {
  const last = series.at(-1);
  if (last && last.values && sample.at - last.at < TOGETHER_S && series.length > 1) last.values = sample.values;
  else series.push(sample);
  if (series.length > SAMPLES_MAX) series.splice(0, 200);
  while (series.length > 2 && series[1].at < sample.at - KEEP_S) series.shift();
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

export class Books {
  constructor() {
    this.devices = new Map();
    this.leases = new Map();
    this.copies = new Map();
    this.slots = new Map();
    this.copiesMax = 0;
    this.copiesSeries = [];
  }

  load(history) {
    this.leases = new Map(history.base.leases.map((lease) => [`${lease.model}\n${lease.lease}`, { ...lease }]));
    this.copies = new Map(Object.entries(history.base.copies));
    this.slots = new Map();
    this.copiesMax = history.ram.sleep_ram_max_bytes;
    const shown = new Map(history.devices.map((device) => [device.id, device]));
    for (const id of this.devices.keys()) if (!shown.has(id)) this.devices.delete(id);
    for (const device of history.devices) {
      const known = history.base.devices.find((one) => one.device === device.id);
      this.device(device.id, {
        kind: device.kind, label: device.label, name: device.name, total: device.total_bytes,
        free: known?.free_bytes ?? device.total_bytes, shared: known?.shared_bytes ?? 0,
        usedBy: new Map(Object.entries(known?.used_by ?? {})), unreturned: new Map(Object.entries(known?.unreturned ?? {})),
      });
    }
  }

  device(id, fields = {}) {
    let device = this.devices.get(id);
    if (!device) {
      device = {
        id, kind: "", label: id, name: "", total: 0, free: 0, shared: 0, usedBy: new Map(), unreturned: new Map(),
        series: [], measuredAt: 0,
      };
      this.devices.set(id, device);
    }
    return Object.assign(device, fields);
  }

  /** Another server's books follow: what is drawn of these ends here. */
  broken(at) {
    for (const device of this.devices.values()) device.series.push({ at, values: null });
    if (this.copiesSeries.length) this.copiesSeries.push({ at, values: null });
  }

  /** Take a record in; the devices that look different after it, or null. */
  apply(record) {
    return RULES[record.kind]?.(this, record) ?? null;
  }

  on(id) {
    return [...this.leases.values()].filter((lease) => lease.state !== "waiting" && lease.devices.includes(id));
  }

  /** The parts of one device, in the order of KINDS. Together they are at most what it has. */
  parts(device, models) {
    const parts = { awake: 0, changing: 0, asleep: 0 };
    for (const lease of this.on(device.id)) {
      const phase = models.get(lease.model)?.phase;
      const up = lease.state === "held" && (phase === "awake" || phase === "draining");
      parts[lease.state === "residue" ? "asleep" : up ? "awake" : "changing"] += lease.bytes;
    }
    const unknown = Math.max(device.total - device.free - sum([...device.usedBy.values()]) - device.shared, 0);
    const others = device.shared + Math.max(unknown, sum([...device.unreturned.values()]));
    const ours = parts.awake + parts.changing + parts.asleep;
    return [parts.awake, parts.changing, parts.asleep, Math.max(Math.min(others, device.total - ours), 0)];
  }

  copiesNow() {
    return sum([...this.copies.values()]) + sum([...this.slots.values()]);
  }

  sample(ids, at, models) {
    for (const id of ids) {
      const device = this.devices.get(id);
      if (device) add(device.series, { at, values: this.parts(device, models) });
    }
    if (this.copiesSeries.at(-1)?.values?.[0] !== this.copiesNow()) add(this.copiesSeries, { at, values: [this.copiesNow()] });
  }

  sampleAll(at, models) {
    this.sample([...this.devices.keys()], at, models);
  }

  sampleOf(model, at, models) {
    const ids = [...this.leases.values()].filter((lease) => lease.model === model).flatMap((lease) => lease.devices);
    if (ids.length) this.sample(new Set(ids), at, models);
  }
}

const key = (r) => `${r.model}\n${r.lease}`;
const drop = (books, r) => {
  const lease = books.leases.get(key(r));
  books.leases.delete(key(r));
  return lease?.devices ?? null;
};

const RULES = {
  DeviceAdded(books, r) {
    books.device(r.device, { kind: r.device_kind, total: r.total_bytes, free: r.total_bytes });
    return [r.device];
  },
  LeaseBooked(books, r) {
    for (const [name, lease] of books.leases) if (lease.model === r.model && lease.state === "residue") books.leases.delete(name);
    books.leases.set(key(r), { model: r.model, lease: r.lease, bytes: r.bytes, devices: r.devices, state: "held" });
    return r.devices;
  },
  LeaseReturning(books, r) {
    const lease = books.leases.get(key(r));
    if (lease) lease.state = "returning";
    return lease?.devices ?? null;
  },
  LeaseFreed(books, r) {
    const lease = books.leases.get(key(r));
    if (!lease) return null;
    if (r.unreturned_bytes) for (const id of lease.devices) books.device(id).unreturned.set(r.model, r.unreturned_bytes);
    if (!r.residue_bytes) return drop(books, r);
    lease.state = "residue";
    lease.bytes = Math.min(r.residue_bytes, lease.bytes);
    return lease.devices;
  },
  LeaseDenied: drop,
  LeaseWithdrawn: drop,
  UnreturnedChanged(books, r) {
    const device = books.device(r.device);
    if (r.bytes) device.unreturned.set(r.model, r.bytes);
    else device.unreturned.delete(r.model);
    return [r.device];
  },
  DevicesMeasured(books, r) {
    for (const found of r.devices) {
      books.device(found.device, {
        free: found.free_bytes, shared: found.shared_bytes, usedBy: new Map(found.used_by), measuredAt: r.at,
      });
    }
    return r.devices.map((found) => found.device);
  },
  SlotBooked(books, r) {
    if (r.copy_bytes) books.slots.set(`${r.model}\n${r.slot}`, r.copy_bytes);
    return [];
  },
  SlotFreed(books, r) {
    const copy = books.slots.get(`${r.model}\n${r.slot}`);
    books.slots.delete(`${r.model}\n${r.slot}`);
    if (r.copied && copy) books.copies.set(r.model, copy);
    return [];
  },
  CopyFreed(books, r) {
    books.copies.delete(r.model);
    return [];
  },
  HolderForgotten(books, r) {
    for (const map of [books.leases, books.slots]) for (const name of map.keys()) if (name.startsWith(`${r.model}\n`)) map.delete(name);
    books.copies.delete(r.model);
    return [...books.devices.keys()];
  },
};
