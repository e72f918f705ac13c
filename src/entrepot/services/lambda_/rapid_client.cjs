// Stands in for the native part of npm's aws-lambda-ric where that could not be built (it compiles curl with autotools).
// The same three functions over Node's own http; one connection, so that requests arrive in order. Loaded by --require.
"use strict";

const http = require("http");
const Module = require("module");

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const path = (rest) => `/2018-06-01/runtime/invocation/${rest}`;

function request(method, rest, headers, body) {
  return new Promise((resolve, reject) => {
    const options = { host, port, method, path: path(rest), headers, agent };
    const sent = http.request(options, (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => resolve({ bodyJson: Buffer.concat(pieces).toString("utf8"), headers: response.headers }));
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

function post(rest, body, headers) {
  const content = Buffer.from(body, "utf8");
  request("POST", rest, { "Content-Type": "application/json", "Content-Length": content.length, ...headers }, content).catch(
    (error) => {
      console.error("The runtime API does not answer:", error);
      process.exit(129);
    },
  );
}

const client = {
  initializeClient() {},
  next: () => request("GET", "next", {}),
  done: (id, body) => post(`${id}/response`, body, {}),
  error: (id, body, cause) => post(`${id}/error`, body, cause ? { "Lambda-Runtime-Function-XRay-Error-Cause": cause } : {}),
};

const load = Module._load;
Module._load = function (name, ...others) {
  if (!name.endsWith("rapid-client.node")) return load.call(this, name, ...others);
  try {
    return load.call(this, name, ...others);
  } catch {
    return client;
  }
};
