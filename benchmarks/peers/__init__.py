"""Other libraries' Grad-CAM and Score-CAM, each behind the same two functions, to run beside ours.

Every adapter, `of_pytorch_grad_cam`, `of_torchcam` and `of_tf_keras_vis`, has

    grad_cam(model, layer, images, target) -> maps
    score_cam(model, layer, images, target, batch_size) -> maps

    model       the network, in evaluation mode, on the CPU
    layer       the layer's name, as in `layers.py`
    images      preprocessed float32 NumPy arrays in the model's layout: (B, C, H, W), or (B, H, W, C) for Keras
    target      a class index, the same for all images
    batch_size  how many masked images the model sees at once
    maps        float32 (B, H, W), in [0, 1]

and makes the library's own object inside, as that library's documentation does, progress bars switched off.
`requirements.txt` says what to install, and `python -m benchmarks.peers.check` whether all of it works.
"""
