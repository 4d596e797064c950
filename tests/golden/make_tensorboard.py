#!/usr/bin/env python3
"""Writes tensorboard.json: an event file, as hexadecimal digits, to which run/tensorboard.hpp is held.

The events are those of tests/test_tensorboard.cpp, made of TensorBoard's own protocol buffers and written by its own
RecordWriter. Needs tensorboard; the bytes were made with tensorboard 2.21.

Usage: make_tensorboard.py > tensorboard.json
"""
import io
import json

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


def row(time, step, values):
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=t, simple_value=v) for t, v in values])
    return event_pb2.Event(wall_time=time, step=step, summary=summary)


def main():
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    events = [
        event_pb2.Event(wall_time=1700000000.25, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=1700000001.25, step=0, session_log=start),
        row(1700000002.25, 0, [("loss", 0.1), ("objective/kl", -2.5)]),
        row(1700000003.25, 1, [("loss", 3e-40)]),
        row(1700000004.25, 300, []),
        event_pb2.Event(wall_time=1700000005.25, step=2, session_log=start),
        row(1700000006.25, 1 << 40, [("x" * 200, 1e30)]),
    ]
    out = io.BytesIO()
    writer = RecordWriter(out)
    for event in events:
        writer.write(event.SerializeToString())
    print(json.dumps({"events": out.getvalue().hex()}))


main()
