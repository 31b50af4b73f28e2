"""A plugin of fusioncam for ONNX models, which run forward only: region methods explain them."""
