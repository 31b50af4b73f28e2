"""Engines that run masked passes in place of a framework: OpenVINO and ONNX Runtime."""
