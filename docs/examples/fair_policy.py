"""A policy for Vibra in twenty lines: each VM gets bandwidth in proportion to what it sent, and never less than its floor.

bandwidth = { policy = "program", command = ["python3", "fair_policy.py"], timeout = "1s" }
"""
import json
import sys

for line in sys.stdin:
    ask = json.loads(line)
    resource, vms = ask["resource"], [vm for vm in ask["vms"] if vm["state"] != "down"]
    sent = {vm["id"]: max((s.get("egress", 0) for s in ask["usage"][vm["id"]]), default=0) for vm in vms}
    floor = {vm["id"]: vm["floor"].get(resource, 0) for vm in vms}
    down = sum(vm["desired"]["resources"].get(resource, 0) for vm in ask["vms"] if vm["state"] == "down")
    free = (ask["bound"] or 0) - down - sum(floor.values())
    actions = []
    if sum(sent.values()) > 0 and free >= 0:
        for vm, rate in sent.items():
            to = floor[vm] + free * rate // sum(sent.values())
            actions.append({"vm": vm, "to": to, "reason": f"it sent {rate} bytes/s"})
    print(json.dumps({"base": ask["base"], "actions": actions}), flush=True)
