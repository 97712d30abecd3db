#!/bin/sh
# A trainer that is done at once, by the trainer contract: for sweeps of more than a thousand cells. Its loss is fake_trainer.py's
# of order 1, for any seed but 0.
echo '{"event": "result", "metrics": {"validation_loss": 3.99}, "scores": [], "outputs": {}, "report": {}}' >> "$ALLOMETRY_EVENTS"
