from layerstore.cli import main

main()
