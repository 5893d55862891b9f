module plane-webhook/bench/peers

go 1.26.0
