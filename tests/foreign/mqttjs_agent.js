// MQTT.js under remote control: one command per line of JSON comes in, one answer per command goes out, and a line for
// each message received in between. Many clients live in one process; the tests name them. Ends with its input.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const mqtt = require("mqtt");

const clients = new Map();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// MQTT.js wants the name of 3.1 beside its number.
const VERSIONS = {
  3.1: { protocolVersion: 3, protocolId: "MQIsdp" },
  "3.1.1": { protocolVersion: 4 },
  "5.0": { protocolVersion: 5 },
};

function options(wish) {
  const made = {
    ...VERSIONS[wish.version],
    clientId: wish.client_id,
    clean: !wish.durable,
    reconnectPeriod: 0,
    resubscribe: false,
  };
  if (wish.ca) made.ca = fs.readFileSync(wish.ca);
  if (wish.version === "5.0") made.properties = { sessionExpiryInterval: wish.expiry };
  if (wish.will) made.will = { ...wish.will, payload: Buffer.from(wish.will.payload, "base64") };
  return made;
}

function received(topic, payload, packet) {
  const properties = packet.properties ?? {};
  return {
    topic,
    payload: payload.toString("base64"),
    qos: packet.qos,
    retain: packet.retain,
    response_topic: properties.responseTopic ?? "",
    correlation: (properties.correlationData ?? Buffer.alloc(0)).toString("base64"),
  };
}

const commands = {
  async connect({ client, url, filters, qos, ...wish }) {
    const connection = mqtt.connect(url, options(wish));
    clients.set(client, connection);
    connection.on("message", (topic, payload, packet) => say({ client, message: received(topic, payload, packet) }));
    const connack = await new Promise((resolve, reject) => {
      connection.once("connect", resolve);
      connection.once("close", () => reject(new Error("closed before the CONNACK")));
      connection.on("error", reject);
    });
    const granted = filters.length ? await connection.subscribeAsync(filters, { qos }) : [];
    return { session_present: connack.sessionPresent, granted: granted.map((each) => each.qos) };
  },

  async publish({ client, topic, payload, qos, retain, properties }) {
    await clients.get(client).publishAsync(topic, Buffer.from(payload, "base64"), {
      qos,
      retain,
      properties: properties && {
        responseTopic: properties.response_topic || undefined,
        correlationData: properties.correlation ? Buffer.from(properties.correlation, "base64") : undefined,
      },
    });
  },

  async leave({ client }) {
    await clients.get(client).endAsync();
    clients.delete(client);
  },

  async vanish({ client }) {
    const connection = clients.get(client);
    const closed = new Promise((resolve) => connection.once("close", resolve));
    connection.stream.destroy();
    await closed;
    clients.delete(client);
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const { id, command, ...rest } = JSON.parse(line);
    try {
      say({ id, answer: (await commands[command](rest)) ?? {} });
    } catch (error) {
      say({ id, error: String(error) });
    }
  })
  .on("close", () => process.exit(0));
