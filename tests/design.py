"""Numbers of the design that several tests hold the code to."""

# Section 4.3: millions of multiply-accumulates, checked against TF-slim's own layer lists.
MACS = {
    "mobilenet_v2_1.4_224": 582.2,
    "mobilenet_v2_1.0_224": 300.8,
    "mobilenet_v2_0.75_224": 209.1,
    "mobilenet_v2_0.5_224": 97.1,
    "mobilenet_v2_0.35_224": 59.3,
    "mobilenet_v2_0.35_96": 11.9,
    "mobilenet_v3_large_1.0_224": 216.6,
    "mobilenet_v3_large_0.75_224": 154.6,
    "mobilenet_v3_small_1.0_224": 56.5,
    "mobilenet_v3_large_minimalistic_1.0_224": 209.1,
    "mobilenet_v3_small_minimalistic_1.0_224": 52.3,
    "mobilenet_edgetpu_1.0_224": 990.7,
    "mobilenet_edgetpu_0.75_224": 624.5,
}
