"""What the notebooks share: one module per job, each importing only from those before it in this list.

storage, config, decode, images, anatomy, phantom, dataset, guard, batches, model, activations, epochs, training,
metrics, intervals, evaluation, published, explain, plots, predict, answer, upload, app: the analysis and its page.
markup, sources, provenance, report, kernel, plan, run: the runner and its pages. compare, publish, serve, download: a
command each.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
